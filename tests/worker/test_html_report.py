"""The HTML page: complete, self-contained, and safe with hostile names."""

import math
from collections import Counter
from html.parser import HTMLParser

import pytest

from espalier import tables
from models_store.documents import job_spec, report
from worker.runner.html_report import formats, plots, render

VOID = {"meta"}


def layers(blocks: int) -> tuple[report.LayerRow, ...]:
    """A residual network of three stages, `blocks` blocks each, its stem and classifier."""
    rows = [layer("stem", "Conv", 16, 8, 442_368, 221_184, pinned=None)]
    for stage, width in enumerate((16, 32, 64), start=1):
        for block in range(blocks):
            for conv in (1, 2):
                kept = max(8, round(width * (0.4 + 0.3 * math.sin(stage * block + conv)) / 8) * 8)
                macs = 2_359_296 if (block, conv) != (0, 1) else 1_179_648
                rows.append(
                    layer(
                        f"layer{stage}.{block}.conv{conv}", "Conv", width, kept, macs, macs * kept // width, pinned=None
                    )
                )
    rows.append(layer("fc", "Gemm", 10, 10, 640, 320, pinned="its channels are the model's output 'logits'"))
    return tuple(rows)


def layer(name, op, channels, kept, macs, macs_pruned, pinned):
    return report.LayerRow(
        name=name,
        op=op,
        groups=() if pinned else (len(name) % 7,),
        channels_original=channels,
        channels_pruned=kept,
        macs_original=macs,
        macs_pruned=macs_pruned,
        params_original=channels * 144,
        params_pruned=kept * 72,
        time_original_ms=macs / 1e7,
        time_pruned_ms=macs_pruned / 1e7,
        pinned_reason=pinned,
    )


def accuracy(top1: float, loss: float) -> report.Accuracy:
    return report.Accuracy(top1=top1, top5=min(1.0, top1 + 0.05), loss=loss, samples=5000)


def latency(batch_size: int, original: float, pruned: float) -> report.LatencyRow:
    def summary(median: float) -> report.LatencySummary:
        return report.LatencySummary(p50_ms=median, p90_ms=median * 1.07, p99_ms=median * 1.31)

    return report.LatencyRow(
        batch_size=batch_size,
        threads=1,
        rounds=60,
        original=summary(original),
        pruned=summary(pruned),
        speedup=original / pruned,
        speedup_low=original / pruned * 0.96,
        speedup_high=original / pruned * 1.05,
        noise=0.031,
    )


def training(epochs: int, best: int) -> report.Training:
    return report.Training(
        device="cpu",
        train_samples=45_000,
        validation_samples=5_000,
        best_epoch=best,
        epochs=tuple(
            report.EpochRow(
                epoch=epoch,
                learning_rate=0.02 * (1 + math.cos(math.pi * epoch / epochs)) / 2,
                train_loss=1.1 * math.exp(-epoch / 5) + 0.31,
                validation_loss=0.9 * math.exp(-epoch / 4) + 0.36 + 0.02 * math.sin(3 * epoch),
                validation_top1=0.905 - 0.22 * math.exp(-epoch / 4) + 0.004 * math.sin(2 * epoch),
                seconds=41.7,
            )
            for epoch in range(epochs + 1)
        ),
    )


def sample_report(blocks: int = 9, **changes: object) -> report.Report:
    """What a job on a CIFAR network of 6 `blocks` + 2 layers might report."""
    rows = layers(blocks)
    original = sum(row.macs_original for row in rows)
    pruned = sum(row.macs_pruned for row in rows)
    whole = report.Report(
        job_id=f"job_{'0193f2a7':0<32}",
        attempt=1,
        spec=job_spec.JobSpec(
            model_id=f"mdl_{'0193f2a7':0<32}",
            dataset_id=f"dst_{'0193f2a7':0<32}",
            budget=job_spec.Budget(macs_ratio=0.5),
            finetuning=job_spec.Finetuning(epochs=20, crop_padding=4, horizontal_flip=True),
        ),
        model_name="resnet56-cifar10",
        model_sha256="3f" * 32,
        dataset_sha256="a7" * 32,
        original=report.Cost(
            params=855_770, macs=original, flops=2 * original, size_bytes=3_462_144, peak_memory_bytes=21_000_000
        ),
        pruned=report.Cost(
            params=391_204, macs=pruned, flops=2 * pruned, size_bytes=1_603_880, peak_memory_bytes=14_000_000
        ),
        budget=(report.BudgetVerdict(name="macs_ratio", goal=0.5, value=round(pruned / original, 4), verdict="met"),),
        accuracy=report.AccuracyRows(
            original=accuracy(0.9038, 0.371),
            after_cut=accuracy(0.6412, 1.402),
            final=accuracy(0.9002, 0.377),
            changed_labels=0.052,
        ),
        latency=(latency(1, 2.31, 1.24), latency(32, 61.0, 27.4)),
        layers=rows,
        proof=report.Proof(
            passed=True,
            tolerance=1e-4,
            max_relative_error=3.1e-7,
            compared_tensors=61,
            runs=(report.ProofRun(input_shapes={"input": (2, 3, 32, 32)}, max_relative_error=3.1e-7),),
        ),
        parity=report.Parity(max_relative_error=8.8e-7, tolerance=1e-4),
        training=training(epochs=20, best=17),
        warnings=(),
        machine=report.Machine(
            cpu="AMD EPYC 9B14",
            cores=2,
            memory_bytes=25_200_000_000,
            gpu=None,
            sandbox="T0",
            versions={"python": "3.11.7", "torch": "2.14.1", "onnx": "1.23.2", "onnxruntime": "1.31.1"},
        ),
        artifacts=(
            report.Artifact(name="pruned.onnx", media_type="application/onnx", size_bytes=1_603_880, sha256="5c" * 32),
        ),
        stage_seconds={"baseline": 9.1, "prune": 3.8, "finetune": 834.0, "evaluate": 8.7, "measure": 14.2},
    )
    return whole.model_copy(update=changes)


class Page(HTMLParser):
    """Counts tags, keeps attributes and text, and checks that what opens closes in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        self.tags[tag] += 1
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags[tag] += 1
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_page_shows_every_figure_of_the_report():
    page = Page(render(sample_report()))
    for shown in (
        "90.02 %",
        "90.38 %",
        f"{formats.MINUS}0.36 points",
        "391 k",
        "1.60 MB",
        "1.24 ms",
        "1.86\N{MULTIPLICATION SIGN}",
        "3.1·10⁻⁷",
    ):
        assert shown.replace(" ", formats.SPACE) in page.text
    assert "its channels are the model's output 'logits'" in page.text
    assert "5c" * 32 in page.text
    assert "Epoch 17 was best" in page.text


def test_page_says_how_many_processes_trained():
    together = training(3, 2).model_copy(update={"processes": 2})
    assert "in 2 processes together" in render(sample_report(training=together))
    assert "together" not in render(sample_report(training=training(3, 2)))


def test_a_report_from_before_processes_were_counted_is_read():
    document = sample_report(training=training(3, 2)).model_dump(mode="json")
    del document["training"]["processes"]
    assert report.Report.model_validate(document).training.processes == 1


def test_page_asks_for_nothing_from_outside():
    page = Page(render(sample_report()))
    assert not {"script", "link", "img", "iframe", "object", "embed", "form", "use"} & set(page.tags)
    assert not {"src", "href", "xlink:href", "srcset"} & {name for name, _ in page.attributes}
    assert "url(" not in render(sample_report())
    assert "@import" not in render(sample_report())


def test_names_from_a_model_cannot_become_markup():
    hostile = "</title></svg><script>alert(1)</script>\"'><img src=x onerror=alert(2)>&lt;"
    rows = (layer(hostile, hostile, 8, 8, 100, 100, pinned=hostile),)
    waived = sample_report().proof.model_copy(update={"waived_nodes": (hostile,)})
    html = render(sample_report(layers=rows, model_name=hostile, warnings=(hostile,), proof=waived))
    clean = Page(render(sample_report(layers=layers(1)[:1], warnings=("one",))))
    page = Page(html)
    assert not {"script", "img"} & set(page.tags)
    assert page.tags["svg"] == clean.tags["svg"]
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert hostile in page.text


def test_a_name_of_a_million_characters_is_shortened():
    html = render(sample_report(layers=(layer("x" * 1_000_000, "Conv", 8, 8, 1, 1, pinned=None),)))
    assert len(html) < 100_000


def test_one_bar_pair_per_layer_in_both_skylines():
    page = Page(render(sample_report(blocks=60)))
    assert len(sample_report(blocks=60).layers) == 362
    assert page.tags["rect"] == 2 * 2 * 362 + 2 * 2  # two skylines and two latency plots, original and pruned each


def test_a_job_without_data_reports_what_it_measured():
    page = Page(render(sample_report(accuracy=None, training=None, parity=None, latency=(), dataset_sha256=None)))
    assert "accuracy was not measured" in page.text
    assert "Finetuning" not in page.text
    assert "Latency" not in page.text


def test_outputs_beside_the_class_scores_are_told_beside_the_accuracy():
    def rows(error: float) -> report.Fidelity:
        return report.Fidelity(error=error, outputs=(report.OutputError(name="embedding", error=error),), samples=5000)

    found = report.FidelityRows(after_cut=rows(0.4567), final=rows(0.0789))
    page = Page(render(sample_report(fidelity=found)))
    assert "Other outputs' error" in page.text
    assert "Outputs against the original's" in page.text
    assert "embedding" in page.text
    assert page.text.index("Accuracy") < page.text.index("Other outputs' error")


def test_kernels_and_random_masks_are_shown_and_escaped():
    rows = (
        report.KernelRow(
            name="<b>conv</b>",
            kernels=4096,
            kernels_kept=2048,
            weights=36_864,
            weights_kept=18_432,
            importance_kept=0.734,
            blocks=4,
            inputs_per_block=32,
        ),
        report.KernelRow(
            name="stem",
            kernels=48,
            kernels_kept=48,
            weights=432,
            weights_kept=432,
            importance_kept=1.0,
            reason="has 3 input and 16 output channels; 8 of each are needed",
        ),
    )
    kernels = report.KernelReport(
        layout="grouped", sparsity=0.5, rows=rows, conv_weights_original=37_296, conv_weights_kept=18_864
    )
    masks = report.MaskSearch(
        granularity="feature_map", samples=4950, errors=(0.61, 0.4321, 0.9), best=1, control=0.52, seconds=3.0
    )
    text = Page(render(sample_report(kernels=kernels, random_masks=(masks,)))).text
    text = text.replace("\u202f", " ").replace("\xa0", " ").replace("\u2009", " ")
    for shown in ("<b>conv</b>", "2 048", "73.4 %", "50.6 %", "kept: has 3 input", "43.21 %", "52.00 %", "61.00 %"):
        assert shown in text, shown


def test_of_an_even_number_of_masks_the_median_lies_between_two():
    masks = report.MaskSearch(
        granularity="kernel", samples=100, errors=(0.83, 0.21, 0.42, 0.62), best=1, control=0.33, seconds=3.0
    )
    assert f"52.00{formats.SPACE}%" in Page(render(sample_report(random_masks=(masks,)))).text


def test_a_diverged_training_still_draws():
    rows = tuple(
        row.model_copy(update={"train_loss": math.nan, "validation_loss": math.inf})
        for row in training(3, best=0).epochs
    )
    page = Page(render(sample_report(training=training(3, best=0).model_copy(update={"epochs": rows}))))
    assert "nan" not in "".join(value for name, value in page.attributes if name in {"points", "cx", "cy"})
    assert "The model before training was best" in page.text


@pytest.mark.parametrize(("best", "exported"), [(0, "and is the one exported"), (3, "and epoch 3 is the one exported")])
def test_what_else_judged_the_epoch_is_said(best, exported):
    page = Page(render(sample_report(training=training(4, best).model_copy(update={"judged_on_both": True}))))
    assert f"on as many training images besides, {exported}" in page.text


def test_what_a_training_before_the_cut_left_is_said():
    asked = job_spec.Regularisation(method="swd")
    spec = sample_report().spec.model_copy(update={"regularisation": asked})
    whole = sample_report(spec=spec, regularisation=training(4, 4), doomed_left=0.123)
    assert "it left 12.3" in Page(render(whole)).text
    assert "it left" not in Page(render(whole.model_copy(update={"doomed_left": None}))).text


def test_a_slower_model_is_not_called_faster():
    text = Page(render(sample_report(latency=(latency(1, 2.0, 2.5),)))).text
    assert "0.80\N{MULTIPLICATION SIGN} as fast" in text
    level = latency(1, 2.0, 2.0)
    assert "no difference beyond the noise" in Page(render(sample_report(latency=(level,)))).text


def test_latencies_at_one_batch_size_are_told_apart_by_their_threads():
    one = latency(8, 2.0, 1.0)
    two = one.model_copy(update={"threads": 2})
    found = sample_report(latency=(one, two))
    page = render(found)
    for row in (one, two):
        assert f'<td class="n">8</td><td class="n">{row.threads}</td><td>original</td>' in page
    assert [cell for cell in tables.summary(found).columns[0].cells if "latency" in str(cell)] == [
        "latency, batch 8 (p50)",
        "latency, batch 8, 2 threads (p50)",
    ]


def test_a_small_goal_keeps_its_digits():
    line = report.BudgetVerdict(name="macs_ratio", goal=0.0001, value=0.0412, verdict="unreachable")
    spec = sample_report().spec.model_copy(update={"budget": job_spec.Budget(macs_ratio=0.0001)})
    text = Page(render(sample_report(budget=(line,), spec=spec))).text
    assert text.count(f"≤ 0.010{formats.SPACE}%") == 2
    assert f"≤ 0.0{formats.SPACE}%" not in text


def test_bars_stand_in_proportion_to_what_they_show():
    plot = plots.skyline(layers(9), lambda row: (row.channels_original, row.channels_pruned), formats.quantity)
    per_channel = {
        round((plot.frame.bottom - column.original_y) / column.layer.channels_original, 2) for column in plot.columns
    } | {round((plot.frame.bottom - column.pruned_y) / column.layer.channels_pruned, 2) for column in plot.columns}
    assert len(per_channel) == 1
    edges = [column.x + column.width for column in plot.columns]
    assert all(edge <= column.x for edge, column in zip(edges, plot.columns[1:], strict=False))


def test_one_straggler_does_not_set_the_scale_of_a_latency_plot():
    row = latency(1, 2.0, 1.0)
    straggling = row.model_copy(update={"original": row.original.model_copy(update={"p99_ms": 100.0})})
    plot = plots.latency_plot(straggling)
    assert plot.series[0].p50 - plot.frame.left > 0.5 * (plot.frame.right - plot.frame.left)
    assert [series.clipped for series in plot.series] == [True, False]
    assert plot.series[0].p99 == plot.frame.right


@pytest.mark.parametrize(
    ("share", "samples", "low", "high"), [(0.9, 100, 0.8256, 0.9448), (1.0, 50, 0.9287, 1.0), (0.0, 10, 0.0, 0.2775)]
)
def test_wilson_intervals_match_published_values(share, samples, low, high):
    assert plots.wilson(share, samples) == pytest.approx((low, high), abs=2e-4)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (formats.quantity(41_213_952), "41.2 M"),
        (formats.quantity(999_999), "1.00 M"),
        (formats.quantity(977), "977"),
        (formats.size(312_000), "312 kB"),
        (formats.percent(0.98611, 2), "98.61 %"),
        (formats.ratio(0.5), "50.0 %"),
        (formats.ratio(0.0001), "0.010 %"),
        (formats.ratio(0), "0.0 %"),
        (formats.points(-0.0028), f"{formats.MINUS}0.28 points"),
        (formats.points(0.00001), "0 points"),
        (formats.seconds(3725), "1 h 02 min"),
        (formats.seconds(59.7), "1 min 00 s"),
        (formats.error(3.14e-7), "3.1·10⁻⁷"),
        (formats.error(1e-4), "10⁻⁴"),
        (formats.error(0), "0"),
        (formats.significant(0.00421), "0.00421"),
        (formats.shorten("a" * 300, 9), "aaaa…aaaa"),
    ],
)
def test_formats(text, expected):
    assert text == expected.replace(" ", formats.SPACE)


@pytest.mark.parametrize(
    ("share", "told"),
    [
        ("auto", "half of the loss distilled from the original at temperature 4.0, for images that it is right about"),
        (0.25, "25.0\N{NO-BREAK SPACE}% of the loss distilled from the original at temperature 4.0"),
        (0.0, ""),
    ],
)
def test_what_the_original_taught_is_told(share, told):
    whole = sample_report(training=training(3, best=1).model_copy(update={"taught": bool(share)}))
    tuning = whole.spec.finetuning.model_copy(update={"distillation": share})
    text = Page(render(whole.model_copy(update={"spec": whole.spec.model_copy(update={"finetuning": tuning})}))).text
    assert (told in text) if told else ("distilled" not in text)
    assert ("on labels and original" in text) == bool(share)
    assert ("for images that it is right about" in text) == (share == "auto")


def test_what_was_excused_as_rounding_and_how_often_a_training_diverged_is_told():
    whole = sample_report(training=training(3, best=1).model_copy(update={"retreats": 2}))
    proof = whole.proof.model_copy(update={"excused": 0.0031})
    text = Page(render(whole.model_copy(update={"proof": proof}))).text
    assert "rounding" in text
    assert "left all bounds 2 times" in text
    assert "rounding" not in Page(render(sample_report())).text
