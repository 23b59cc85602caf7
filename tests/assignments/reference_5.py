"""Assignment 5 as it should be handed in: full marks. It uses no library function but those allowed."""

import torch

import tinyheads as th


def stream_at_end(model, prompts, where):
    seen = []
    model(prompts.tokens, th.Stream(edits=[th.Edit(where, lambda x: seen.append(x[:, prompts.end]) or x, of="stream")]))
    return seen[0]


def means_of(rows, index, n_items):
    return torch.stack([rows[index == i].mean(0) for i in range(n_items)])


def mean_write(model, prompts, writers):
    stream = th.Stream(record=True)
    model(prompts.tokens, stream)
    total = sum(stream.writes[str(writer)][:, prompts.end] for writer in writers)   # [B, D]
    return means_of(total - total.mean(1, keepdim=True), prompts.index, prompts.positions.shape[1])


def principal_components(means, k):
    centred = means - means.mean(0)
    _, vectors = torch.linalg.eigh(centred.T @ centred)                             # ascending, in columns
    return vectors.flip(1)[:, :k].T


def principal_angles(first, second):
    cosines = torch.linalg.svdvals(first.double() @ second.double().T)
    return torch.rad2deg(torch.arccos(cosines.clamp(-1, 1)))


def set_coordinates(x, basis, values, position):
    old = x[:, position] @ basis.T                                                  # [B, k]
    x = x.clone()
    x[:, position] += (values - old) @ basis
    return x


def traverse(model, prompts, basis, points, circuit):
    attention, reader = [], circuit.movers[0]
    for point in points:
        change = th.set_coordinates(basis, point, prompts.end)
        stream = th.Stream(record=True, edits=[th.Edit(circuit.where, change, of="stream")])
        model(prompts.tokens, stream)
        at_end = stream.patterns[f"L{reader.layer}"][:, reader.head, prompts.end]   # [B, T]
        attention.append(at_end.gather(1, prompts.positions).mean(0))               # [N]
    attention = torch.stack(attention)                                              # [G, N]
    return attention, attention.argmax(1)


def codes_of(model, prompts, basis, where):
    return th.by_index(th.coordinates(stream_at_end(model, prompts, where), basis), prompts)


def steered(model, tested_on, basis, values, where):
    """The place that is answered, with END's coordinates set to values [B, k]: [B]."""
    change = th.set_coordinates(basis, values, tested_on.end)
    logits = model(tested_on.tokens, th.Stream(edits=[th.Edit(where, change, of="stream")]))[:, tested_on.end]
    return logits.gather(1, tested_on.candidates).argmax(1)


def random_index_test(model, found_on, tested_on, basis, control, circuit, target):
    where = circuit.where
    codes, others = (codes_of(model, found_on, rows, where) for rows in (basis, control))
    answered = steered(model, tested_on, basis, codes[target], where)
    by_control = steered(model, tested_on, control, others[target], where)
    rates = [(found == target).float().mean().item() for found in (answered, by_control)]
    return codes, rates[0], others, rates[1]


def draw_regions(model, found_on, shown_on, basis, circuit, steps, path):
    from matplotlib.figure import Figure

    codes = th.mean_codes(model, found_on, circuit, basis)                          # [N, k]
    low, high = codes.amin(0), codes.amax(0)
    low, high = low - 0.25 * (high - low), high + 0.25 * (high - low)
    points = codes.mean(0).repeat(steps, steps, 1)                                  # [steps, steps, k]
    points[:, :, 0] = torch.linspace(float(low[0]), float(high[0]), steps)[:, None]
    points[:, :, 1] = torch.linspace(float(low[1]), float(high[1]), steps)
    points = points.flatten(0, 1)                                                   # [G, k]
    attention, _ = th.traverse(model, shown_on, circuit, basis, points)             # [G, N]
    owners = attention.argmax(1)                                                    # [G]
    figure = Figure(figsize=(6, 5))
    axes = figure.subplots()
    axes.scatter(points[:, 0], points[:, 1], c=owners, cmap="tab20", vmin=0, vmax=len(codes) - 1, marker="s", s=60)
    for i, code in enumerate(codes):
        axes.annotate(str(i), (code[0].item(), code[1].item()), fontsize=14, weight="bold")
    axes.set(xlabel="dimension 0", ylabel="dimension 1", title=f"Item that {circuit.movers[0]} attends to most")
    figure.savefig(path, dpi=100)
    with open(path, "rb") as file:
        return codes, points, owners, torch.frombuffer(bytearray(file.read()), dtype=torch.uint8)


def chance_overlap(k, m, D):
    one = 2 * m * (D - m) / (D**2 * (D + 2))                                        # the variance for one direction
    return k * m / D, (k * one * (D - k) / (D - 1))**0.5


def plane_for_six(model, found_on, circuit):
    means = mean_write(model, found_on, circuit.inhibition)
    space = principal_components(means, 3)                                          # [3, D]
    codes = th.mean_codes(model, found_on, circuit, space)                          # [6, 3], an octahedron's corners
    middle = codes.mean(0)
    arms = codes - middle
    cosine = torch.nn.functional.normalize(arms, dim=1)
    first, opposite = [], (cosine @ cosine.T).argmin(1).tolist()
    for i in range(len(codes)):
        if opposite[i] not in first:
            first.append(i)
    A = torch.stack([(arms[i] - arms[opposite[i]]) / 2 for i in first])             # [3, 3], the axes
    corners = torch.zeros(len(codes), 3)
    for axis, i in enumerate(first):
        corners[i, axis], corners[opposite[i], axis] = 1, -1
    flat = corners - corners.mean(1, keepdim=True)                                  # seen along a diagonal: a hexagon
    normal = torch.linalg.solve(A, torch.ones(3))                                   # the plane that holds flat @ A
    plane = torch.linalg.svd(normal[None]).Vh[1:]                                   # [2, 3]
    return plane @ space, (middle + 16 * flat @ A) @ plane.T
