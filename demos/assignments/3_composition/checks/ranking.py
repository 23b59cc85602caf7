"""Checks of 3.4 to 3.6: the identity, the edges that stand out, and the area under the ROC curve.

These exercises are handed tables of scores: compared with the library and with counting pair by pair.
"""

import torch
from torch import Tensor

import tinyheads as th
from grader.comparing import Wrong, kind_of
from grader.grading import Call, Check, Exercise, Outputs, Part, agrees
from grader.inputs import random_int
from tinyheads.known_circuits import IOI_CIRCUIT, KnownEdges, circuit_auc
from tinyheads.planted import planted

TOLERANCE = 1e-3
Place = tuple[int, int]


def later(L: int) -> Tensor:
    """Where the reader is in a later layer than the writer: [L, 1, L, 1]."""
    return (torch.arange(L)[:, None] < torch.arange(L))[:, None, :, None]


# --- 3.4 the identity ---------------------------------------------------------------------------------------


def identity_calls(generator: torch.Generator) -> list[Call]:
    """Random component scores of two sizes, and those of the planted model."""
    calls = []
    for L, H, K in [(3, 2, 4), (4, 3, 5 + random_int(generator, 0, 2))]:
        scores = torch.rand(L, H, K, L, H, generator=generator) * later(L)[:, :, None]
        calls.append(Call((scores, (torch.rand(L, H, K, generator=generator) + 0.1).sort(-1, descending=True).values)))
    heads = th.Heads.of(planted(seed=random_int(generator, 0, 10_000)).model)
    return [*calls, Call((th.component_scores(heads, "Q"), th.ov_svd(heads).scale))]


def weighted(scores: Tensor, weight: Tensor) -> Tensor:
    """Sum over the components: [L, H, L, H]."""
    return torch.einsum("lhk,lhkmn->lhmn", weight, scores)


def shares(scale: Tensor, dim=-1) -> Tensor:
    return scale / scale.sum(dim, keepdim=True)


IDENTITY = [
    (lambda c, s: weighted(c**2, shares(s**2)), "this is the score squared: the square root is missing"),
    (lambda c, s: weighted(c**2, shares(s)).sqrt(),
     "the weights are sigma_i; they should be sigma_i squared, divided by their sum"),
    (lambda c, s: weighted(c**2, shares(s) ** 2).sqrt(),
     "you divided by (sum of sigma)^2; it should be the sum of sigma^2"),
    (lambda c, s: weighted(c, shares(s**2)),
     "the components' scores are to be squared before the mean, and the root taken after"),
    (lambda c, s: weighted(c, shares(s**2)).sqrt(), "the components' scores are to be squared before the mean"),
    (lambda c, s: weighted(c, shares(s)), "the scores and the sigmas are to be squared"),
    (lambda c, s: weighted(c**2, s**2).sqrt(), "the weights sigma_i^2 are not divided by their sum"),
    (lambda c, s: weighted(c**2, s**4 / (s**4).sum(-1, keepdim=True)).sqrt(), "the singular values are squared twice"),
    (lambda c, s: (c**2).mean(2).sqrt(), "all components count alike; each should count by its share of sigma^2"),
    (lambda c, s: c.mean(2), "this is the plain mean of the components' scores"),
    (lambda c, s: c.amax(2), "this is the best component's score"),
    (lambda c, s: (c**2).sum(2).sqrt(), "this is the sum over components without any weights"),
    (lambda c, s: weighted(c**2, shares(s**2, 1)).sqrt(),
     "you divided by the sum over HEADS; the shares are of one head's components"),
    (lambda c, s: weighted(c**2, shares(s**2, (0, 1, 2))).sqrt(),
     "you divided by the sum over all heads; the shares are of one head's components")]


def identity(number: int) -> Check:
    expected = lambda c, s: weighted(c**2, shares(s**2)).sqrt()
    return agrees(number, expected, TOLERANCE, IDENTITY, "the scores", "the handout, part 5")


whole_from_components = Exercise("3.4 the identity", "whole_from_components", 2, identity_calls, [
    Part("values", 1, identity(0)), Part("another size", 0.5, identity(1)), Part("the "
                                                                                 "planted model", 0.5, identity(2))])


# --- 3.5 the edges that stand out ---------------------------------------------------------------------------


def edges_calls(generator: torch.Generator) -> list[Call]:
    """Tables whose entries where the reader is not later mean nothing; the last is the planted model's."""
    calls = []
    for L, H, K, n in [(3, 2, 4, 5), (5, 2, 5, 40)]:
        scores = torch.randperm(L * H * K * L * H, generator=generator).view(L, H, K, L, H) / (L * H * K * L * H)
        calls.append(Call((torch.where(later(L)[:, :, None], 0.5 * scores, scores), n)))
    writer, reader = th.Head(1, random_int(generator, 0, 3)), th.Head(2, random_int(generator, 0, 3))
    built = planted(writer, reader, seed=random_int(generator, 0, 10_000))
    return [*calls, Call((th.component_scores(th.Heads.of(built.model), "Q"), 3))]


def ranked(scores: Tensor, n: int, allowed=lambda a, c: a < c, best_first: bool = True,
           count_from: int = 0) -> list[str]:
    """The edges one by one; the knobs make the mistakes."""
    L, H, K = scores.shape[:3]
    edges = [(scores[a, b, i, c, d].item(), (a, b, i, c, d)) for a in range(L) for b in range(H) for i in range(K)
             for c in range(L) for d in range(H) if allowed(a, c)]
    edges.sort(reverse=best_first)
    name = lambda place: "L{}.H{}.C{} -> L{}.H{}".format(*(x + count_from for x in place))
    return [name(place) for _, place in edges[:n]]


EDGES = [
    (lambda s, n: ranked(s, n, best_first=False),
     "these are the LOWEST scores; the highest come first (descending=True)"),
    (lambda s, n: ranked(s, n, lambda a, c: True),
     "it lists pairs whose reader is not in a later layer than the writer; what stands in the table there means "
     "nothing"),
    (lambda s, n: ranked(s, n, lambda a, c: a <= c),
     "it lists pairs within one layer: the reader must be in a STRICTLY later one"),
    (lambda s, n: ranked(s, n, lambda a, c: a > c), "it lists pairs whose reader is EARLIER than the writer"),
    (lambda s, n: ranked(s, n, count_from=1),
     "the names count from 1; layers, heads and components are counted from 0"),
    (lambda s, n: ranked(s, n)[::-1],
     "these are the right edges from the lowest to the highest; the highest comes first"),
    (lambda s, n: ["{2} -> {0}".format(*edge.partition(" -> ")) for edge in ranked(s, n)],
     "writer and reader are exchanged"),
    (lambda s, n: [edge.replace(" ", "") for edge in ranked(s, n)],
     "the arrow has a space on each side: L0.H7.C1 -> L1.H0"),
    (lambda s, n: ranked(s, n + 1), "it is one edge too many"), (lambda s, n: ranked(s, n - 1),
                                                                 "it is one edge too few")]


def listed(number: int) -> Check:
    def check(calls: list[Call], outputs: Outputs) -> None:
        scores, n = calls[number].args
        output, expected = outputs[number], ranked(scores, n)
        if not isinstance(output, (list, tuple)) or not all(isinstance(edge, str) for edge in output):
            raise Wrong(f"a list of strings such as \"L0.H7.C1 -> L1.H0\" should be returned, not {kind_of(output)}")
        if list(output) == expected:
            return
        for wrong, message in EDGES:
            if list(output) == wrong(scores, n):
                raise Wrong(f"{message}. See the handout, part 6")
        if sorted(output) == sorted(expected):
            raise Wrong("these are the right edges in the wrong order: the highest score comes first. See the "
                        "handout, part 6")
        if len(output) != n:
            raise Wrong(f"{n} edges were asked for, and {len(output)} returned")
        k = next(i for i, (edge, wanted) in enumerate(zip(output, expected)) if edge != wanted)
        raise Wrong(f"edge {k} of the list is {output[k][:60]!r}; in its place should be {expected[k]!r}. (Are the "
                    "axes of the table taken in their order: layer, head, component, reader's layer, reader's head?) "
                    "See the handout, part 6")
    return check


top_edges = Exercise("3.5 the edges that stand out", "top_edges", 3, edges_calls, [
    Part("the edges", 1.5, listed(0)), Part("another size", 0.5, listed(1)), Part("the planted channel", 1, listed(2))])


# --- 3.6 the area under the ROC curve -----------------------------------------------------------------------


def in_layers(generator: torch.Generator, layers: list[int], H: int) -> list[Place]:
    """Different heads, one for each entry of `layers`."""
    order = {layer: torch.randperm(H, generator=generator).tolist() for layer in sorted(set(layers))}
    return [(layer, order[layer].pop()) for layer in layers]


def area_calls(generator: torch.Generator) -> list[Call]:
    """A table for the IOI circuit, one with many ties, and one with writers that are not before all the readers."""
    known = IOI_CIRCUIT["Q"]
    writers, readers = [[(head.layer, head.head) for head in group] for group in (known.writers, known.readers)]
    scores = torch.rand(12, 12, 12, 12, generator=generator)
    for writer in writers:
        for reader in readers:
            scores[(*writer, *reader)] = scores[(*writer, *reader)].sqrt()                       # better than chance
    calls = [Call((scores, writers, readers))]
    for L, H, levels, writing, reading in [(4, 3, 1000, [0, 0, 1, 1], [2, 3, 3]), (5, 4, 6, [0, 1, 1, 2], [3, 4, 3]),
                                           (6, 3, 50, [0, 1, 2, 4], [5, 4, 2])]:
        scores = torch.randint(0, levels, (L, H, L, H), generator=generator) / levels
        scores = torch.where(later(L), scores, scores + 0.5)
        calls.append(Call((scores, in_layers(generator, writing, H), in_layers(generator, reading, H))))
    return calls


def area(scores: Tensor, writers: list[Place], readers: list[Place]) -> float:
    """By the library."""
    edges = KnownEdges(tuple(th.Head(*place) for place in writers), tuple(th.Head(*place) for place in readers))
    return circuit_auc(scores, "Q", {"Q": edges})


def counted(scores: Tensor, writers: list[Place], readers: list[Place], tie: float = 0.5, known_too: bool = False,
            earlier=lambda w, r: w < r, every_reader: bool = False) -> float:
    """The area by counting; the knobs make the mistakes. nan where there is nothing to count."""
    L, H = scores.shape[:2]
    pairs = [((a, b), (c, d)) for a in range(L) for b in range(H) for c in range(L) for d in range(H) if earlier(a, c)]
    is_known = lambda w, r: w in writers and r in readers
    known = torch.tensor([scores[(*w, *r)] for w, r in pairs if is_known(w, r)])
    others = torch.tensor([scores[(*w, *r)] for w, r in pairs
                           if (r in readers or every_reader) and (known_too or not is_known(w, r))])
    wins = (known[:, None] > others).double() + tie * (known[:, None] == others).double()         # [known, others]
    return wins.mean().item() if wins.numel() else float("nan")


AREAS = [
    (lambda *a: 1 - area(*a), "this is 1 minus the area: it counts how often a known pair scores BELOW another"),
    (lambda *a: counted(*a, tie=0), "ties count nothing with you; a tie counts half"),
    (lambda *a: counted(*a, tie=1), "ties count as won with you; a tie counts half"),
    (lambda *a: counted(*a, known_too=True),
     "the known pairs are among the others as well; they should be compared with the OTHER pairs alone"),
    (lambda *a: counted(*a, every_reader=True),
     "the other pairs are those of all readers; they should have the SAME readers as the known ones"),
    (lambda *a: counted(*a, every_reader=True, earlier=lambda w, r: True),
     "the other pairs are all entries of the table; they should have the same readers, and a writer in an earlier "
     "layer"),
    (lambda *a: counted(*a, earlier=lambda w, r: True),
     "pairs whose writer is not in an earlier layer than the reader are counted as well; what stands in the table "
     "there means nothing"),
    (lambda *a: counted(*a, earlier=lambda w, r: w <= r),
     "pairs within one layer are counted as well; the writer must be in a STRICTLY earlier layer"),
    (lambda s, w, r: counted(s.permute(2, 3, 0, 1), w, r),
     "the table is read as reader by writer; it is writer by reader"),
    (lambda *a: below_the_mean(*a),
     "this is the share of others below the MEAN of the known ones; compare each known pair with each other one")]


def below_the_mean(scores, writers, readers) -> float:
    """The share of other pairs that lie below the mean of the known ones."""
    known = torch.stack([scores[(*w, *r)] for w in writers for r in readers if w[0] < r[0]]).mean()
    others = [scores[a, b, c, d] for c, d in readers for a in range(c) for b in range(scores.shape[1])
              if (a, b) not in writers]
    return (torch.stack(others) < known).double().mean().item()


def measured(number: int) -> Check:
    return agrees(number, area, 1e-6, AREAS, "the area", "the handout, part 7")


roc_area = Exercise("3.6 the area under the ROC curve", "roc_area", 3, area_calls, [
    Part("the IOI circuit", 1, measured(0)), Part("another circuit", 0.5, measured(1)), Part("ties", 0.5, measured(2)),
    Part("writers that are not before every reader", 1, measured(3))])
