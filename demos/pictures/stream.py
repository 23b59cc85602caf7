"""Draws demos/pictures/stream.png, the README's picture: a mover head reads what an inhibition head wrote."""

from pathlib import Path

from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from tinyheads import plots

DARK, CHANNEL, GREY = "#222222", plots.COLOURS[2], "#d9d9d9"

figure, axes = plots.new_figure(10, 4.6)
panel = axes[0, 0]
panel.set(xlim=(0, 20), ylim=(0, 9.2))
panel.axis("off")


def box(x, y, width, height, text, colour="white"):
    """A rounded box with a text in it, its lower left corner at (x, y)."""
    panel.add_patch(FancyBboxPatch((x, y), width, height, boxstyle="round,pad=0.08", facecolor=colour, edgecolor=DARK,
                                   linewidth=1.2))
    panel.text(x + width / 2, y + height / 2, text, ha="center", va="center", fontsize=9)


def arrow(start, end, text="", colour=DARK, width=1.4, bend=0.0, at=(0, 0)):
    """An arrow with a note beside its middle."""
    panel.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=13, color=colour, linewidth=width,
                                    connectionstyle=f"arc3,rad={bend}"))
    panel.text((start[0] + end[0]) / 2 + at[0], (start[1] + end[1]) / 2 + at[1], text, fontsize=8, color=colour,
               va="center", ha="left")


# The stream at the list's positions, and at the last one, with the channel inside it.
for y, label in [(6.6, "stream at the list:\n... the sock, the shirt, the hat ..."),
                 (2.0, "stream at END:\nthe one left is the")]:
    panel.add_patch(FancyBboxPatch((4.4, y), 13.4, 0.9, boxstyle="square,pad=0", facecolor=GREY, edgecolor="none"))
    panel.text(4.2, y + 0.45, label, ha="right", va="center", fontsize=9)
    arrow((17.8, y + 0.45), (18.9, y + 0.45), width=2)
panel.text(19.0, 2.45, "logits", fontsize=9, va="center")
panel.add_patch(FancyBboxPatch((8.6, 2.28), 5.3, 0.3, boxstyle="square,pad=0", facecolor=CHANNEL, edgecolor="none"))
panel.text(11.25, 2.43, "communication channel (rank 1 to 3)", ha="center", va="center", fontsize=8, color="white")

box(6.3, 4.2, 2.6, 1.1, "inhibition head\nL8.H10")
arrow((6.9, 6.6), (6.9, 5.4), "attends to items\ncrossed off", at=(-2.55, 0))
arrow((8.2, 4.1), (8.6, 2.65), "writes “not those”\nthrough component C1", CHANNEL, 2.2, at=(-4.0, 0.1))
box(13.3, 4.2, 2.6, 1.1, "mover head\nL9.H9")
arrow((13.6, 2.65), (14.0, 4.1), "reads it as its query\n(Q-composition)", CHANNEL, 2.2, at=(-3.2, 0.1))
arrow((14.6, 6.6), (14.6, 5.4), "attends to\nthe item left", at=(0.25, 0))
arrow((15.2, 4.1), (15.2, 2.95), "writes it to END", at=(0.25, 0.1))
panel.text(10.0, 8.7, "Layers talk through the residual stream: each reads it (behind a LayerNorm) and adds to it",
           ha="center", fontsize=10.5, weight="bold")
panel.text(4.4, 0.9, "embed", fontsize=9)
panel.text(17.8, 0.9, "unembed", fontsize=9, ha="right")
arrow((5.9, 1.0), (16.0, 1.0), width=1)
panel.text(11.0, 0.5, "layers 0 to 11", fontsize=9, ha="center")
plots.save_figure(figure, Path(__file__).with_name("stream.png"), dpi=110)
