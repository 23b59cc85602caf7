"""tinyheads: a GPT-2 whose residual stream you can hold, and circuits predicted from its weights.

Read the modules in this order: config, checkpoint (with array_file, safetensors_file,
tensorflow_bundle, crc32c), download, tokenizer, stream, model, attribution, heads, composition, edges,
known_circuits, lists (prompts, with words), at_end, subspace, causal, edit, repair, plots.
Each opens with its idea, and needs only those before it.
"""

from tinyheads.attribution import logit_attribution
from tinyheads.files.checkpoint import Checkpoint, open_checkpoint
from tinyheads.composition import component_score, component_scores, composition_score, composition_scores
from tinyheads.config import OPENAI_SIZES, GPT2Config
from tinyheads.errors import (CheckpointError, ConfigError, DownloadError, HeadError, InputError, StreamError,
                              SubspaceError, TaskError, TinyheadsError, TokenizerError)
from tinyheads.edges import Edge, predict_edges
from tinyheads.edit import edit_output
from tinyheads.heads import (SVD, Component, Head, Heads, block_of, degenerate_blocks, ov_svd, qk_svd)
from tinyheads.known_circuits import IOI_CIRCUIT, circuit_auc
from tinyheads.lists import Prompts, ioi, laundry_list, ordinal_recall
from tinyheads.generation import Batch, batch
from tinyheads.model import GPT2, Cache
from tinyheads.stream import Edit, Stream, pattern_names, read_names, write_names
from tinyheads.files.tokenizer import Tokenizer
from tinyheads.files.weights import download, find_weights, load, load_heads, load_tokenizer, save

__version__ = "0.1.0"
