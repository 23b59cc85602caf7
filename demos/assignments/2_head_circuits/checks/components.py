"""Checks of 2.5 to 2.7: the SVD of a thin product, the norm of a circuit, and one component of a write.

Compared with the library, in float64. A component's sign is not determined, nor are the vectors of components of equal
strength; so the check is whether the parts add up to the matrix, not whether they are the library's.
"""

import torch
from torch import Tensor

import tinyheads as th
from grader.comparing import Wrong, kind_of, same_shape, tensor_like
from grader.grading import Call, Check, Exercise, Outputs, Part, agrees, all_of
from grader.inputs import random_int

from .weights import TOLERANCE, check_shapes, entry_agrees, heads, model, some_head

LARGE_D, LARGE_K = 40_000, 8  # [D, D] would be 6.4 GB in float32, more than an exercise may use


def thin_calls(generator: torch.Generator) -> list[Call]:
    """Two random circuits, the OV of one of the model's heads, and a very wide one: (A, B), both [D, K]."""
    sizes = [(30, 5), (23 + random_int(generator, 0, 4), 7)]
    calls = [Call(tuple(torch.randn(2, D, K, generator=generator))) for D, K in sizes]
    layer, head = some_head(generator)
    of_model = (heads(True).W_V[layer, head], heads(True).W_O[layer, head].T.contiguous())
    return [*calls, Call(of_model), Call(tuple(torch.randn(2, LARGE_D, LARGE_K, generator=generator) / 100))]


def svd_of(A: Tensor, B: Tensor) -> th.SVD:
    """The library's, in float64, of one circuit as if it were a QK: read [K, D], scale [K], write [K, D]."""
    W_Q, W_K = A.double()[None, None], B.double()[None, None]                                     # [1, 1, D, K]
    nothing = W_Q.new_zeros(1, 1, A.shape[1])
    svd = th.qk_svd(th.Heads(model().config, W_Q, W_K, W_Q, W_K.transpose(2, 3), *[nothing] * 3, *[nothing[0]] * 3))
    return th.SVD(svd.read[0, 0], svd.scale[0, 0], svd.write[0, 0])


# --- 2.5 the SVD of a thin product --------------------------------------------------------------------------

SVD_NAMES = "read, scale, write"
SCALES = [
    (lambda A, B: svd_of(A, B).scale**2,
     "these are the squared singular values (eigenvalues of M M^T): take the square root"),
    (lambda A, B: svd_of(A, B).scale.flip(0), "they rise; the strongest component comes first"),
    (lambda A, B: svd_of(A, B).scale / svd_of(A, B).scale.norm(),
     "you normalised them; they are the circuit's own strengths"),
    (lambda A, B: svd_of(A, B).scale.sqrt(), "these are the square roots of the singular values"),
    (lambda A, B: torch.linalg.svdvals(A.double()), "these are the singular values of A alone"),
    (lambda A, B: torch.linalg.svdvals(B.double()), "these are the singular values of B alone"),
    (lambda A, B: torch.linalg.svdvals(torch.linalg.qr(A.double()).R @ torch.linalg.qr(B.double()).R),
     "the core is R_1 @ R_2 with no transpose: A B^T = Q_1 R_1 (Q_2 R_2)^T, so it is R_1 @ R_2.T"),
    (lambda A, B: torch.linalg.svdvals(A.double().T @ B.double()),
     "these are the singular values of A^T B [K, K], another matrix than A B^T")]


def is_rotation_by(rows: Tensor, basis: Tensor, wrong: Tensor) -> bool:
    """Whether rows [K, D] are `wrong` [K, K] times an orthonormal basis' columns [D, K], but for signs."""
    return bool(((rows.double() @ basis).abs() - wrong.abs()).abs().max() < 1e-3)


def why_not_the_circuit(A: Tensor, B: Tensor, read: Tensor, write: Tensor) -> str:
    """What is wrong with unit, orthogonal rows that do not add up to A B^T."""
    right = svd_of(A, B)
    Q_1, Q_2 = torch.linalg.qr(A.double()).Q, torch.linalg.qr(B.double()).Q                       # [D, K]
    U, V = Q_1.T @ right.read.T, Q_2.T @ right.write.T                                     # [K, K]: core = U S V^T
    aligned = lambda x, y: bool(((x.double() * y).sum(1).abs() > 0.999).all())  # the same rows but for signs
    if aligned(read, right.write) and aligned(write, right.read):
        return "read and write are exchanged: A's side is read, B's is written"
    if aligned(read.flip(0), right.read) and aligned(write.flip(0), right.write):
        return "the components are in rising order; the strongest comes first"
    if is_rotation_by(write, Q_2, V) and is_rotation_by(read, Q_1, U):
        return ("you mixed up V and V^T: torch.linalg.svd gives (U, S, V^T), so that U's columns, and V^T's ROWS, are "
                "the vectors")
    if is_rotation_by(write, Q_2, V):
        return ("write is made of V where V^T belongs: torch.linalg.svd gives V^T, whose ROWS are the v_i (write = Vt "
                "@ Q_2.T)")
    if is_rotation_by(read, Q_1, U):
        return "read is made of the rows of U; its COLUMNS are the u_i (read = (Q_1 @ U).T)"
    if aligned(read, right.read) and aligned(write, right.write):
        return ("each vector is right but for its sign, and the signs of some pairs do not go together: turn both or "
                "neither")
    return "the rows are orthonormal, but sum of scale[i] * outer(read[i], write[i]) is not A @ B.T"


def decomposition(number: int) -> Check:
    """Unit rows, orthogonal, that add up to A B^T."""
    def check(calls: list[Call], outputs: Outputs) -> None:
        A, B = calls[number].args
        read, _, write = unpacked(A, outputs[number])
        for name, rows in (("read", read), ("write", write)):
            products = rows.double() @ rows.double().T                                            # [K, K]
            if not products.isfinite().all():
                raise Wrong(f"{name} holds nan or inf")
            if not torch.allclose(products.diagonal(), torch.ones(len(rows)).double(), atol=1e-3):
                raise Wrong(f"the rows of {name} are not of length 1: the first one's is {products[0, 0].sqrt():.4g}. "
                            "The strength belongs in scale alone. See the handout, part 5")
            if (products - torch.eye(len(rows))).abs().max() > 1e-3:
                raise Wrong(f"the rows of {name} are not orthogonal to each other. See the handout, part 5")
        probe = torch.randn(A.shape[0], 3, generator=torch.Generator().manual_seed(number), dtype=torch.float64)
        strength = svd_of(A, B).scale[:, None]                  # the right one: scale has points of its own
        made = read.double().T @ (strength * (write.double() @ probe))                            # [D, 3]
        wanted = A.double() @ (B.double().T @ probe)
        if (made - wanted).abs().max() > TOLERANCE * wanted.abs().max():
            raise Wrong(f"{why_not_the_circuit(A, B, read, write)}. See the handout, part 5")
    return check


def unpacked(A: Tensor, output: object) -> tuple[Tensor, Tensor, Tensor]:
    """(read, scale, write) of the right shapes, or Wrong."""
    if not isinstance(output, (tuple, list)) or len(output) != 3:
        raise Wrong(f"{SVD_NAMES} should be returned, a tuple of 3, not {kind_of(output)}")
    D, K = A.shape
    read, scale, write = map(tensor_like, output)
    for name, each in zip(("read", "write"), (read, write)):
        if isinstance(each, Tensor) and list(each.shape) == [D, K] and D != K:
            raise Wrong(f"{name} is [D, K], with the vectors as columns; return them as rows, [K, D]: {name}.T")
        if isinstance(each, Tensor) and list(each.shape) == [D, D]:
            raise Wrong(f"{name} is [D, D], a basis of the whole stream: keep K vectors, make no [D, D] matrix")
        if isinstance(each, Tensor) and list(each.shape) == [K, K]:
            raise Wrong(f"{name} is [K, K], vectors in the core's space: bring them to the stream with Q_1 or Q_2")
        same_shape(each, [K, D], "component d_model", name)
    same_shape(scale, [K], "component", "scale")
    return read, scale, write


def scales(number: int) -> Check:
    return entry_agrees(number, 1, 3, SVD_NAMES, lambda A, B: svd_of(A, B).scale, SCALES, "the handout, part 5")


thin_svd = Exercise("2.5 the SVD of a thin product", "thin_svd", 4, thin_calls, [
    Part("shapes", 0.5, lambda calls, outputs: unpacked(calls[0].args[0], outputs[0])),
    Part("singular values", 0.5, scales(0)), Part("components", 1, decomposition(0)),
    Part("another size, and a head of the model", 1, all_of(scales(1), decomposition(1), scales(2), decomposition(2))),
    Part("D = 40,000", 1, all_of(scales(3), decomposition(3)))])


# --- 2.6 the norm of a circuit ------------------------------------------------------------------------------


def norm_of(A: Tensor, B: Tensor) -> float:
    """From the singular values, by the library."""
    return svd_of(A, B).scale.norm().item()


NORMS = [
    (lambda A, B: norm_of(A, B) ** 2, "this is the norm squared: the square root is missing"),
    (lambda A, B: (A.norm() * B.norm()).item(),
     "this is ||A|| ||B||, the product of the factors' norms. The norm of a product is smaller, by how much depends "
     "on how they fit together"),
    (lambda A, B: A.norm().item(), "this is the norm of the factor A alone"),
    (lambda A, B: B.norm().item(), "this is the norm of the factor B alone"),
    (lambda A, B: (A.T @ B).norm().item(), "this is the norm of A^T B [K, K], another matrix than A B^T"),
    (lambda A, B: svd_of(A, B).scale[0].item(),
     "this is the largest singular value (the spectral norm); the Frobenius norm takes all of them"),
    (lambda A, B: svd_of(A, B).scale.sum().item(),
     "this is the sum of the singular values (the nuclear norm); the Frobenius norm is the root of the sum of their "
     "squares"),
    (lambda A, B: torch.linalg.qr(A.double()).R.norm().item() * B.double().norm().item(), "this is ||A|| ||B||"),
    (lambda A, B: ((A.T @ A) @ (B.T @ B)).norm().item(),
     "this is the norm of (A^T A)(B^T B); its TRACE is the squared norm"),
    (lambda A, B: ((A.T @ A) @ (B.T @ B)).norm().sqrt().item(),
     "this is the root of the norm of (A^T A)(B^T B); take that product's TRACE in place of its norm"),
    (lambda A, B: (torch.linalg.qr(A.double()).R @ torch.linalg.qr(B.double()).R).norm().item(),
     "the core is R_1 @ R_2 with no transpose: it should be R_1 @ R_2.T")]


def norm(number: int) -> Check:
    return agrees(number, norm_of, TOLERANCE, NORMS, "the norm", "the handout, part 6")


circuit_norm = Exercise("2.6 the norm of a circuit", "circuit_norm", 2, thin_calls, [
    Part("value", 1, norm(0)), Part("another size, and a head of the model", 0.5, all_of(norm(1), norm(2))),
    Part("D = 40,000", 0.5, norm(3))])


# --- 2.7 one component of a write ---------------------------------------------------------------------------


def write_calls(generator: torch.Generator) -> list[Call]:
    """What a head picks up, its components, and one of them, neither first nor last."""
    calls = []
    for (A, B), T in [(call.args, T) for call, T in zip(thin_calls(generator), (6, 9, 8))]:
        svd = svd_of(A, B)
        x = torch.randn(T, A.shape[0], generator=generator)
        index = random_int(generator, 1, A.shape[1] - 2)
        calls.append(Call((x, svd.read.float(), svd.scale.float(), svd.write.float(), index)))
    return calls


def part_of(x: Tensor, read: Tensor, scale: Tensor, write: Tensor, i: int) -> Tensor:
    return torch.outer(x.double() @ read[i].double(), write[i].double() * scale[i].double()).float()


def whole(x: Tensor, read: Tensor, scale: Tensor, write: Tensor, i: int) -> Tensor:
    return sum(part_of(x, read, scale, write, k) for k in range(len(scale)))


PARTS_WRONG = [
    (lambda x, r, s, w, i: part_of(x, w, s, r, i),
     "read and write are exchanged: the component reads along read[i] and writes along write[i]"),
    (lambda x, r, s, w, i: part_of(x, r, s / s, w, i), "the strength scale[i] is missing"),
    (lambda x, r, s, w, i: part_of(x, r, s**2, w, i), "the strength scale[i] is in it twice"),
    (lambda x, r, s, w, i: part_of(x, r, s, w, i - 1), "this is component index - 1: components are counted from 0"),
    (lambda x, r, s, w, i: part_of(x, r, s, w, i + 1), "this is component index + 1: components are counted from 0"),
    (lambda x, r, s, w, i: part_of(x, w, s / s, w, i),
     "you projected what is picked up on write[i]; it is the WRITE that lies along write[i], and the component reads "
     "along read[i]"),
    (lambda x, r, s, w, i: part_of(x, w, s, w, i), "you measured x along write[i]; the component reads along read[i]"),
    (lambda x, r, s, w, i: part_of(x, r, s, r, i), "it lies along read[i]; the component writes along write[i]"),
    (lambda x, r, s, w, i: whole(x, r, s, w, i) - part_of(x, r, s, w, i),
     "this is the rest, not the part: (part, rest)"),
    (whole, "this is the head's whole write"),
    (lambda x, r, s, w, i: sum(part_of(x, r, s, w, k) for k in range(i + 1)),
     "this is the first index + 1 components together; one alone is asked for")]
RESTS_WRONG = [
    (lambda x, r, s, w, i: x - part_of(x, r, s, w, i),
     "you took the part out of x, which the head READS. The rest is that of its write, x @ OV = sum of all "
     "components' parts"),
    (whole, "this is the head's whole write, with the component still in it"),
    (part_of, "this is the part, not the rest: (part, rest)"),
    (lambda x, r, s, w, i: sum(part_of(x, r, s, w, k) for k in range(i)),
     "this is the components before index; those behind it belong to the rest as well"),
    (lambda x, r, s, w, i: whole(x, r, s, w, i) - part_of(x, r, s / s, w, i),
     "what was taken out lacks the strength scale[i]"),
    (lambda x, r, s, w, i: whole(x, w, s, r, i) - part_of(x, w, s, r, i), "read and write are exchanged"),
    (lambda x, r, s, w, i: whole(x, w, s, w, i) - part_of(x, w, s, w, i),
     "you measured x along the write vectors; components read along the read vectors"),
    (lambda x, r, s, w, i: whole(x, r, s, w, i) - part_of(x, w, s / s, w, i),
     "what was taken out is not the component's part: you measured x along write[i]"),
    (lambda x, r, s, w, i: whole(x, r, s / s, w, i) - part_of(x, r, s / s, w, i), "the strengths (scale) are missing"),
    *[(lambda x, r, s, w, i, step=step: whole(x, r, s, w, i) - part_of(x, r, s, w, i + step),
       "another component was taken out: they are counted from 0") for step in (-1, 1)],
    (lambda x, r, s, w, i: whole(x, r, s, w, i) - part_of(whole(x, r, s, w, i), r, s / s, w, i),
     "you measured the write along read[i]; it is made of parts along the write vectors")]


def component_part(number: int) -> Check:
    return entry_agrees(number, 0, 2, "part, rest", part_of, PARTS_WRONG, "the handout, part 7")


def component_rest(number: int) -> Check:
    return entry_agrees(number, 1, 2, "part, rest", lambda *args: whole(*args) - part_of(*args), RESTS_WRONG,
                        "the handout, part 7")


split_write = Exercise("2.7 one component of a write", "split_write", 2, write_calls, [
    Part("the part", 1, all_of(
        check_shapes(0, "part, rest", lambda x, *_: [x.shape] * 2, ["position d_model"] * 2), component_part(0))),
    Part("the rest", 0.5, component_rest(0)),
    Part("another size, and a head of the model", 0.5,
         all_of(*[check(number) for number in (1, 2) for check in (component_part, component_rest)]))])
