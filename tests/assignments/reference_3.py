"""Assignment 3 done: full marks. In plain torch, since the grader lets these functions import no tinyheads.

Written from the handout alone, without the library's code in view: checks.py compares it with the library.
"""

import torch
from torch import Tensor


def circuit(head: dict[str, Tensor], mode: str) -> tuple[Tensor, Tensor]:
    """M_r = A @ B.T, as A and B [D, K]."""
    return {"Q": (head["W_Q"], head["W_K"]), "K": (head["W_K"], head["W_Q"]), "V": (head["W_V"], head["W_O"].T)}[mode]


def norm(A: Tensor, B: Tensor) -> Tensor:
    """||A B^T||, both [D, K]."""
    return (A @ torch.linalg.qr(B).R.T).norm()


def composition_score(writer: dict[str, Tensor], reader: dict[str, Tensor], mode: str) -> Tensor:
    A, B = circuit(reader, mode)
    W_V, W_O = writer["W_V"], writer["W_O"]
    return norm(W_V @ (W_O @ A), B) / (norm(W_V, W_O.T) * norm(A, B))


def composition_table(heads: dict[str, Tensor], mode: str) -> Tensor:
    L, H, D, K = heads["W_Q"].shape
    table = torch.zeros(L, H, L, H)
    places = [(layer, head) for layer in range(L) for head in range(H)]
    one = {place: {name: W[place] for name, W in heads.items()} for place in places}
    for w, writer in one.items():
        for r, reader in one.items():
            if w[0] < r[0]:
                table[(*w, *r)] = composition_score(writer, reader, mode)
    return table


def component_scores(write: Tensor, reader: dict[str, Tensor], mode: str) -> Tensor:
    A, B = circuit(reader, mode)
    R = torch.linalg.qr(B).R                                                # [K, K]
    return (write @ A @ R.T).norm(dim=1) / (A @ R.T).norm()                 # [K]


def whole_from_components(scores: Tensor, scale: Tensor) -> Tensor:
    share = scale**2 / (scale**2).sum(-1, keepdim=True)                     # [L, H, K]
    return (share[..., None, None] * scores**2).sum(dim=2).sqrt()           # [L, H, L, H]


def top_edges(scores: Tensor, n: int) -> list[str]:
    L, H, K, _, _ = scores.shape
    edges = [(scores[a, b, i, c, d].item(), f"L{a}.H{b}.C{i} -> L{c}.H{d}") for a in range(L) for b in range(H)
             for i in range(K) for c in range(a + 1, L) for d in range(H)]
    return [text for _, text in sorted(edges, key=lambda edge: -edge[0])[:n]]


def roc_area(scores: Tensor, writers: list[tuple[int, int]], readers: list[tuple[int, int]]) -> float:
    known, others = [], []
    for reader in readers:
        for layer in range(reader[0]):
            for head in range(scores.shape[1]):
                group = known if (layer, head) in [tuple(writer) for writer in writers] else others
                group.append(scores[layer, head, reader[0], reader[1]])
    known, others = torch.stack(known)[:, None], torch.stack(others)        # [known, 1], [others]
    return ((known > others).double() + 0.5 * (known == others).double()).mean().item()


def chance_scores(reader: dict[str, Tensor], mode: str) -> tuple[float, float]:
    A, B = circuit(reader, mode)
    D, G = len(A), (A.T @ A) @ (B.T @ B)                                    # the trace of G is ||M||^2
    p = ((G @ G).trace() / G.trace()**2).item()                             # trace(S S), where S = M M^T / ||M||^2
    return 1 / D, (2 * (p * D - 1) / (D**2 * (D + 2)))**0.5


def edge_scores(heads: dict[str, Tensor]) -> Tensor:
    """Composition once the directions that all heads share are taken out of what is written and read."""
    D = heads["W_Q"].shape[2]
    by_all = torch.cat([heads["W_O"].movedim(3, 0).flatten(1), heads["W_Q"].movedim(2, 0).flatten(1)], dim=1)
    U, S, _ = torch.linalg.svd(by_all, full_matrices=False)
    shared = U[:, S > 2.5 * S.median()]                                     # [D, few]: louder than chance
    rest = torch.eye(D) - shared @ shared.T
    return composition_table(heads | {"W_Q": rest @ heads["W_Q"], "W_O": heads["W_O"] @ rest}, "Q")
