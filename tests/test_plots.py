import matplotlib.image
import pytest
from matplotlib.figure import Figure

from alilama.plots import plot_log, read_log, save_figure

LOG = """step,tokens,epoch,train_loss,val_loss,val_bits_per_byte,learning_rate,tokens_per_s
10,1000000,0.1,3.5,,,0.001,5000
20,2000000,0.2,3.0,2.0,1.0,0.001,5000
30,3000000,0.3,2.5,,,0.0005,5000
40,4000000,0.4,2.25,2.5,1.25,1e-05,5000
"""


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "owl" / "log.csv"
    path.parent.mkdir()
    path.write_text(LOG)
    return path


def test_a_log_is_read_as_numbers_and_empty_cells_are_left_out(log):
    rows = read_log(log)
    assert rows[0] == {"step": 10, "tokens": 1e6, "epoch": 0.1, "train_loss": 3.5, "learning_rate": 0.001, "tokens_per_s": 5000}
    assert rows[3]["val_loss"] == 2.5 and rows[3]["learning_rate"] == 1e-5
    assert len(rows) == 4


def test_the_curves_are_the_numbers_of_the_log(log):
    figure = plot_log(log)
    figure.draw_without_rendering()
    [axes] = figure.axes
    training, validation = axes.get_lines()
    assert training.get_xydata().tolist() == [[1, 3.5], [2, 3.0], [3, 2.5], [4, 2.25]]
    assert validation.get_xydata().tolist() == [[2, 2.0], [4, 2.5]]
    title = axes.get_title()  # the best evaluation, not the last
    assert title.startswith("owl") and "1.000 bits per byte" in title and "2.0M tokens" in title
    [right] = axes.child_axes
    nats, bits = axes.get_ylim(), right.get_ylim()
    assert bits == pytest.approx([value / 2 for value in nats])  # 2.0 nats per token are 1.0 bits per byte in this log


def test_a_log_without_validation_is_drawn_too(log):
    log.write_text("\n".join(LOG.splitlines()[:2]) + "\n")
    training, _ = plot_log(log).axes[0].get_lines()
    assert training.get_xydata().tolist() == [[1, 3.5]]


def test_the_picture_is_a_png_with_something_on_it(log):
    save_figure(plot_log(log), log.with_name("loss.png"))
    assert log.with_name("loss.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    pixels = matplotlib.image.imread(log.with_name("loss.png"))
    assert pixels.shape[:2] == (540, 960)
    colours = {tuple((pixel * 255).round().astype(int)[:3]) for pixel in pixels.reshape(-1, pixels.shape[-1])[::7]}
    assert len(colours) > 20
    assert sorted(path.name for path in log.parent.iterdir()) == ["log.csv", "loss.png"]


def test_a_picture_that_cannot_be_written_leaves_the_old_one_and_no_half_of_the_new(log, monkeypatch):
    picture = log.with_name("loss.png")
    picture.write_bytes(b"old")

    def disk_is_full(self, file, **options):
        if hasattr(file, "write"):
            file.write(b"half")
        else:
            file.write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(Figure, "savefig", disk_is_full)
    with pytest.raises(OSError, match="No space"):
        save_figure(plot_log(log), picture)
    assert picture.read_bytes() == b"old"
    assert sorted(path.name for path in log.parent.iterdir()) == ["log.csv", "loss.png"]


@pytest.mark.parametrize("name", ["$^$", "a_b", "\udcff"])
def test_any_name_of_a_model_can_be_drawn(name, tmp_path):
    (tmp_path / name).mkdir()
    log = tmp_path / name / "log.csv"
    log.write_text("step,tokens,train_loss,val_loss,val_bits_per_byte\n1,10,2.5,0.0,0.0\n2,20,2.0,1.0,0.5\n3,x,nan,\xff,\n")
    save_figure(plot_log(log), tmp_path / "loss.png")
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")
