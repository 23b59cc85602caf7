"""Published facts: what others measured in the real models, to hold loaded weights against (`check.py`).

A model that is loaded wrongly (a transposed matrix, heads in another order, one LayerNorm too many) still runs, and may
still write something like English. So a reader compares with numbers that other programs found in the models that
OpenAI and EleutherAI released: texts that they go on with, the largest singular value of each head's QK, attention
weights on one prompt. None of these numbers was made by tinyheads; where each comes from stands beside it.
"""

from dataclasses import dataclass

from tinyheads.heads import Head

IOI_PROMPT = "When Mary and John went to the store, John gave a drink to"


@dataclass(frozen=True)
class Continuation:
    """A prompt, and the text with which greedy generation goes on. source: who published it."""

    prompt: str
    text: str
    source: str


@dataclass(frozen=True)
class Attention:
    """The weight with which a head attends from the word `query` to the word `key` of IOI_PROMPT behind <|endoftext|>.

    A word that stands twice in the prompt is meant where it stands first; " John (1)" is where it stands again; the key
    "start" is <|endoftext|>.
    """

    head: Head
    query: str
    key: str
    weight: float


@dataclass(frozen=True)
class Facts:
    """What is published of one model.

    shape: its layers, heads, width and vocabulary, by which it is known; largest_qk: [L][H], the largest singular value
    of W_Q W_K^T with LayerNorm folded; attention: on IOI_PROMPT; continuations: texts it goes on with; ioi: the mean
    lead of the right name in logits and the share of prompts in which it leads, or None; and the sources of these.
    """

    name: str
    shape: tuple[int, int, int, int]
    largest_qk: tuple[tuple[float, ...], ...]
    attention: tuple[Attention, ...]
    traced_by: str
    continuations: tuple[Continuation, ...] = ()
    ioi: tuple[float, float] | None = None
    ioi_source: str = ""


def values(text: str) -> tuple[tuple[float, ...], ...]:
    """A line a layer, a number a head."""
    return tuple(tuple(map(float, line.split())) for line in text.strip().splitlines())


def weights(text: str) -> tuple[Attention, ...]:
    """A line an attention weight, as "L9.H9| to (1)| Mary|0.665133": head, query's word, key's word, weight."""
    rows = [line.split("|") for line in text.strip().splitlines()]
    return tuple(Attention(Head.parse(head), query, key, float(weight)) for head, query, key, weight in rows)


GPT2_124M = Facts(
    name="GPT-2 124M",
    shape=(12, 12, 768, 50257),
    traced_by="accpp-tracer 0.3.0 on TransformerLens",
    largest_qk=values("""
2.4003 3.1219 2.0635 3.4893 2.5944 3.6861 1.5831 2.478 1.7551 0.72954 0.53325 1.8166
4.2945 3.5583 1.5992 1.6828 1.8355 2.6153 3.7758 3.0387 3.7506 5.6085 1.42 3.1785
4.8899 6.286 22.953 10.654 9.9786 12.734 2.357 1.9743 10.364 12.831 1.9981 1.88
5.8195 3.5347 4.8695 4.4546 3.3317 3.3652 4.2502 4.6118 3.5368 4.3304 2.1248 4.1235
4.8443 4.2865 3.4981 5.3915 2.3472 3.4752 1.9921 2.9548 3.5175 3.3715 3.5425 18.46
4.9541 5.5237 3.7635 3.49 2.9509 4.761 3.7385 3.4548 2.6219 2.6072 4.177 2.6131
3.5256 2.8504 2.326 2.4916 3.416 1.7107 1.9941 2.4775 2.4189 4.0944 4.8312 3.1521
3.163 3.6272 3.6355 1.8263 2.68 2.829 1.9412 3.5331 3.3293 2.1723 3.5474 2.9836
2.5706 3.0516 3.5312 2.6439 2.8438 2.5936 2.6854 3.8165 2.4177 2.2113 1.4498 2.5735
2.8059 2.2338 2.9491 4.574 2.6149 1.6877 1.9679 2.4264 2.9932 2.4274 4.0395 3.1112
2.9291 2.2762 2.2445 2.4393 2.6434 4.9327 2.3415 2.0198 2.217 6.1993 3.2693 3.8759
3.31 3.4011 3.8258 5.0617 3.5254 3.6875 3.601 3.6123 6.1452 4.2935 3.7312 5.4938
"""),
    attention=weights("""
L0.H1| gave| gave|0.974684
L0.H5| John| John|0.852674
L0.H5| gave| gave|0.983258
L0.H8| Mary|start|0.694242
L0.H9| Mary|start|0.820521
L0.H10| Mary|start|0.588632
L0.H11| John|start|0.487253
L0.H11| Mary|start|0.608817
L0.H11| to (1)|start|0.278660
L0.H11| went|start|0.533613
L1.H3| John| John|0.130337
L1.H8| Mary|start|0.874421
L1.H10| John|When|0.275636
L1.H10| Mary| Mary|0.416317
L2.H8| to (1)| gave|0.808395
L3.H0| John (1)| John|0.710654
L3.H2| John| and|0.795983
L4.H1| John| and|0.708623
L4.H7| went| went|0.533772
L4.H11| went| John|0.999983
L5.H5| John (1)| went|0.917410
L5.H8| John (1)| went|0.688192
L5.H10| went| and|0.420389
L6.H3| John (1)| went|0.301410
L7.H3| to (1)| gave|0.311985
L8.H3| to (1)| John|0.372085
L8.H3| to (1)| went|0.336933
L8.H6| to (1)| John (1)|0.788149
L8.H10| to (1)| John (1)|0.458088
L9.H6| to (1)| Mary|0.671865
L9.H9| to (1)| Mary|0.665133
L10.H0| to (1)| Mary|0.331946
L10.H1| to (1)| Mary|0.392024
L10.H10| to (1)| Mary|0.214929
"""),
    continuations=(
        Continuation("The dog", " was found in a field near the intersection of West and West Streets.\n\nThe dog",
                     "Hugging Face transformers, tests of GPT-2"),
        Continuation("Alan Turing theorized that computers would one day become",
                     " the most powerful machines on the planet.\n\nThe computer is a machine that can perform complex "
                     "calculations, and it can perform these calculations in a way that is very similar to the human "
                     "brain.", "picoGPT, README")),
    ioi=(3.56, 0.993),
    ioi_source="Wang et al. 2022, section 3, on their prompts")

PYTHIA_160M = Facts(
    name="Pythia-160m",
    shape=(12, 12, 768, 50304),
    traced_by="accpp-tracer 0.3.0 on TransformerLens",
    largest_qk=values("""
2.0496 1.4538 2.5435 1.7052 0.32153 1.0546 0.65119 0.97906 1.7401 1.6902 1.1312 1.3317
1.5837 2.0048 1.1042 1.3077 2.0904 1.7822 1.3391 1.498 2.6783 1.3066 2.3535 1.5342
1.874 1.7914 2.1617 1.8895 1.0144 2.5725 1.1884 2.8182 0.82025 2.3201 2.5708 2.0438
0.92124 1.4476 0.9966 1.5085 0.82731 2.0962 1.2113 0.99158 0.7774 1.7113 1.5827 1.5946
1.9431 1.1923 1.9663 2.5528 1.7796 1.9613 3.087 1.2971 1.6044 2.5788 2.4867 1.7987
2.9047 1.1944 2.3548 1.8315 2.3772 2.2635 4.0774 2.1087 2.216 2.5747 2.3635 1.1493
3.623 2.4909 5.6785 2.3454 2.6559 1.6532 2.5372 1.5207 1.8414 3.583 2.1172 3.0394
2.7584 5.8938 4.3177 3.3812 6.9971 6.6531 5.7625 2.1613 2.3484 10.352 49.229 2.7839
8.2301 30.55 18.753 36.913 70.963 28.441 10.42 23.535 21.679 8.6548 6.3242 14.016
9.2459 16.408 21.743 12.198 29.432 17.646 18.904 21.675 20.44 18.624 6.2142 8.6572
29.834 30.634 20.539 22.747 46.439 9.8781 26.991 22.737 22.076 8.9277 21.823 23.522
14.315 33.304 27.981 25.941 34.207 39.79 21.532 33.952 49.436 27.901 37.174 26.227
"""),
    attention=weights("""
L0.H10| John|start|0.958147
L0.H10| John (1)|start|0.679543
L0.H10|,|When|0.656637
L1.H6| John|start|0.716771
L2.H2|,|When|0.852611
L2.H8| John| and|0.661380
L3.H1| John| and|0.613665
L3.H1| John (1)|,|0.634835
L3.H2| John| and|0.777632
L3.H2| John (1)|,|0.921878
L3.H2| Mary|When|0.927858
L3.H2| and| Mary|0.977623
L3.H2|,| store|0.881335
L3.H3| John| John|0.988916
L3.H8| John| and|0.314430
L4.H5| John (1)|,|0.926267
L4.H8| John| and|0.873688
L4.H9| John| and|0.929838
L5.H1| John (1)| John (1)|0.212948
L6.H6| to (1)| John (1)|0.609202
L6.H8| John|When|0.736030
L7.H7| John| and|0.623930
L7.H11| to (1)| and|0.402637
L8.H2| to (1)| Mary|0.620205
L8.H10| to (1)| John|0.622094
L8.H10| to (1)| Mary|0.313650
L9.H6| to (1)| Mary|0.999167
L9.H8| to (1)| Mary|1.000000
L10.H1| to (1)|,|1.000000
L10.H7| to (1)| Mary|1.000000
"""))

KNOWN = (GPT2_124M, PYTHIA_160M)
