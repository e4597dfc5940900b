"""The table and the picture of a compression."""

from pathlib import Path

import pytest

from hf_effvid.evaluation.block_drop_chart import StepRow, markdown_table, plot_block_drop
from hf_effvid.evaluation.detection import evaluate_detector
from hf_effvid.evaluation.detection_error_change import plot_error_change
from hf_effvid.evaluation.detection_errors import analyze_detections


WHOLE = StepRow(0, "none", 0.9, (0.85, 0.93), n=200, parameters=2_000_000, gmacs=1.0, milliseconds=20.0)
LESS = StepRow(
    1, "7", 0.88, (0.83, 0.92), before=0.7, difference=-0.02, difference_interval=(-0.05, 0.01), n=200, parameters=1_900_000,
    gmacs=0.92, milliseconds=18.5, speedup=1.08, speedup_interval=(1.07, 1.1),
)  # fmt: skip


class TestTable:
    def test_every_number(self):
        lines = markdown_table([WHOLE, LESS], "top1").splitlines()
        assert lines[0] == (
            "| dropped | block | top1 (%) | before recovery | difference | parameters | GMACs | ms | times faster |"
        )
        assert lines[3] == (
            "| 1 | 7 | 88.0 [83.0, 92.0] | 70.0 | -2.0 [-5.0, +1.0] | 1.9 M (95.0 %) | 0.92 (92.0 %) | 18.5 | 1.08 [1.07, 1.10] |"
        )

    def test_columns_without_a_number_are_left_out(self):
        head = markdown_table([StepRow(0, "none", 0.5)], "mAP").splitlines()[0]
        assert head == "| dropped | block | mAP (%) |"

    def test_names_do_not_break_cells(self):
        line = markdown_table([StepRow(0, "a|b", 0.5)], "mAP").splitlines()[-1]
        assert line == r"| 0 | a\|b | 50.0 |"


class TestPicture:
    @pytest.mark.parametrize("rows", [[WHOLE, LESS], [StepRow(0, "none", 0.5)]], ids=["timed", "bare"])
    def test_png_and_svg(self, tmp_path, rows):
        png, svg = plot_block_drop(rows, "top1", tmp_path / "chart", title="model on $data$")
        assert png.read_bytes().startswith(b"\x89PNG")
        text = svg.read_text()
        assert "$data$" in text and "after recovery" in text
        assert ("times faster" in text) == (rows[-1].milliseconds is not None)

    def test_equal_charts_are_equal_files(self, tmp_path):
        first, second = (plot_block_drop([WHOLE, LESS], "top1", tmp_path / name)[1] for name in "ab")
        assert first.read_bytes() == second.read_bytes()


class TestErrorChange:
    TRUTH = {
        f"video_{n}": {"subset": "test", "duration": 20.0, "annotations": [{"segment": [5.0, 9.0], "label": "a"}]}
        for n in range(3)
    }

    def analysis(self, shift, tious=(0.5,)):
        found = {name: [{"segment": [5.0 + shift, 9.0 + shift], "label": "a", "score": 0.9}] for name in self.TRUTH}
        return analyze_detections(evaluate_detector(self.TRUTH, found, tious))

    def test_before_and_after(self, tmp_path):
        files = plot_error_change(self.analysis(0), self.analysis(2.5), tmp_path / "change", "title")
        assert [path.suffix for path in files] == [".png", ".svg"]
        text = Path(files[1]).read_text()
        # three true positives became three localization errors, and every annotation is missed
        assert "before" in text and "after" in text and text.count("100.0") >= 3

    def test_other_thresholds_are_refused(self, tmp_path):
        with pytest.raises(ValueError, match="these differ"):
            plot_error_change(self.analysis(0), self.analysis(0, (0.7,)), tmp_path / "change")
