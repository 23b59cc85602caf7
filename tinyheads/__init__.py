"""tinyheads: a GPT-2 whose residual stream you can hold, and circuits predicted from its weights.

The public names, in the order in which a reader meets them; README.md has a line on each module.
"""

from tinyheads.config import OPENAI_SIZES, PYTHIA_SIZES, GPT2Config, PythiaConfig
from tinyheads.errors import (CheckpointError, ConfigError, DownloadError, HeadError, InputError, StreamError,
                              SubspaceError, TaskError, TinyheadsError, TokenizerError)
from tinyheads.stream import Edit, Stream, pattern_names, read_names, write_names
from tinyheads.generation import Batch, batch
from tinyheads.model import GPT2, Cache
from tinyheads.pythia import Pythia, rotate
from tinyheads.attribution import logit_attribution
from tinyheads.heads import (SVD, Component, Head, Heads, block_of, degenerate_blocks, fold, ov_svd, qk_svd)
from tinyheads.attention import attention_attribution
from tinyheads.composition import component_score, component_scores, composition_score, composition_scores
from tinyheads.edges import Edge, predict_edges
from tinyheads.known_circuits import IOI_CIRCUIT, PYTHIA_IOI_CIRCUIT, circuit_auc
from tinyheads.prompts import Prompts, everyday_text, ioi, laundry_list, ordinal_recall
from tinyheads.scoring import (accuracy, accuracy_by_length, bootstrap_interval, by_index, correct, logits_at_end,
                               perplexity, rank_correlation, wilson_interval)
from tinyheads.last_token import before_end, logits_with_edits, run_end, seen_at_end
from tinyheads.circuit import Circuit, answer_places, attention_back, attention_on, find_circuit, preference_in
from tinyheads.basis import coordinates, principal_angles, procrustes, random_subspace
from tinyheads.ablation import (attributed_scores, carried, channel, components_to_test, composition_with_movers,
                                inhibition_scores, preference, remove, remove_components, restrict)
from tinyheads.subspace import (components_read_most, stream_at_end, subspace_from_activations, subspace_from_weights,
                                subspace_of_components, writes_at_end)
from tinyheads.steering import (Crowding, add_coordinates, crowding, grid, mean_codes, set_coordinates, shares,
                                steered_answers, steering_rate, traverse, traversed_codes)
from tinyheads.repair import Repair, WeightEdit, edit_output, fit_repair
from tinyheads.files.checkpoint import Checkpoint, open_checkpoint
from tinyheads.files.tokenizer import Tokenizer
from tinyheads.files.weights import download, find_weights, load, load_heads, load_tokenizer, save

__version__ = "0.1.0"
