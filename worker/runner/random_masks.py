"""Random masks in a job: drawn, scored on the validation images, and told of in the report.

What would take one worker long is spread: the child leaves its state and the parts to score, and ends. Each part is a
job of its own for any worker; with the scores of all, another attempt goes on. A part that nobody could score is scored
by the job itself.
"""

from __future__ import annotations

import hashlib
import math
import time

import numpy as np

from models_store.documents.job_spec import JobSpec
from models_store.documents.mask_part import MAX_PARTS, Granularity, MaskDraws, MaskPart, MaskParts, MaskScores
from models_store.documents.random_masks import RandomMasks
from models_store.documents.report import MaskSearch
from worker.engine.graph import Analysis, analyze, load_model
from worker.engine.kernels import Target, find_targets
from worker.engine.masks.draws import draw_kernels as kernels_of_draw
from worker.engine.masks.draws import draw_plan
from worker.engine.masks.scoring import Score
from worker.engine.masks.search import Contest, Search, channel_contest, kernel_contest
from worker.engine.surgery import Plan
from worker.order import Order
from worker.runner.interruption import Spread
from worker.runner.voice import Voice
from worker.runner.workbench import Workbench
from worker.work_folder import WorkFolder

_PARTS_PER_WORKER = 2
"""So that a slow worker holds the others up by half of its share at most."""


def draw_channels(bench: Workbench, wanted: RandomMasks, allocated: Plan) -> tuple[Plan, MaskSearch]:
    """The best draw of channels that keeps as many of each group as the allocation does."""
    kept = allocated.counts(bench.analysis)
    draws = MaskDraws(granularity="feature_map", kept=tuple(kept.tolist()), model_sha256=bench.model_file.sha256)
    contest = channel_contest(bench.analysis, kept, _search(bench, wanted))
    best, told = _settle(bench, contest, draws)
    return draw_plan(bench.analysis, kept, contest.draws, best), told


def draw_kernels(
    bench: Workbench, wanted: RandomMasks, analysis: Analysis, targets: list[Target], sparsity: float
) -> tuple[dict[str, np.ndarray], MaskSearch]:
    """The best draw of kernels of the cut model: (outputs, inputs) by weight."""
    digest = hashlib.sha256(bench.cut_path.read_bytes()).hexdigest()
    draws = MaskDraws(granularity="kernel", kept=(), model_sha256=digest)
    contest = kernel_contest(analysis, targets, sparsity, _search(bench, wanted))
    best, told = _settle(bench, contest, draws)
    return dict(kernels_of_draw(targets, sparsity, contest.draws, best)), told


def score_part(order: Order, folder: WorkFolder, voice: Voice) -> MaskScores:
    """The scores of some of the masks, in the state that the job left which they belong to."""
    part, bench = order.part, Workbench(order, folder, voice)
    if part is None or not isinstance(order.spec, JobSpec) or order.spec.random_masks is None:
        raise ValueError("a part has the spec of a job with random masks")
    document = bench.mask_draws_path(part.granularity).read_bytes()
    if hashlib.sha256(document).hexdigest() != part.draws:
        raise ValueError("the job has begun anew since it asked for this part")
    with voice.stage("score"):
        start = time.monotonic()
        contest = _contest(bench, order.spec, order.spec.random_masks, MaskDraws.model_validate_json(document))
        families = [f for f in contest.families if part.first <= f.start < part.last]
        found = contest.score(families)
    return MaskScores(
        part=part,
        wrong=tuple(score.wrong for score in found),
        samples=found[0].samples,
        seconds=time.monotonic() - start,
    )


def spread(kernels: np.ndarray, like: np.ndarray) -> np.ndarray:
    """A mask (outputs, inputs) in the shape of its weight."""
    return np.broadcast_to(kernels.reshape(*kernels.shape, *[1] * (like.ndim - 2)), like.shape)


def _contest(bench: Workbench, spec: JobSpec, wanted: RandomMasks, draws: MaskDraws) -> Contest:
    if draws.granularity == "feature_map":
        return channel_contest(bench.analysis, np.array(draws.kept, dtype=np.int64), _search(bench, wanted))
    if spec.kernels is None:
        raise ValueError("masks of kernels are drawn at the sparsity of the job's kernels")
    analysis = analyze(load_model(bench.cut_path))
    targets, _ = find_targets(analysis, spec.pruning.exclude)
    return kernel_contest(analysis, targets, spec.kernels.sparsity, _search(bench, wanted))


def _settle(bench: Workbench, contest: Contest, draws: MaskDraws) -> tuple[int, MaskSearch]:
    """The number of the best draw, and what the report says. Raises Spread where other workers are to help."""
    start = time.monotonic()
    path = bench.mask_draws_path(draws.granularity)
    path.write_text(draws.model_dump_json())
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    helpful = [each for each in bench.order.mask_scores if each.part.draws == digest]
    known = {
        number: Score(wrong, each.samples)
        for each in helpful
        for number, wrong in zip(range(each.part.first, each.part.last), each.wrong, strict=True)
    }
    asked_before = any(part.granularity == draws.granularity for part in bench.order.mask_parts)
    if bench.may_spread and not asked_before and bench.order.workers > 1:
        known = _try_or_spread(bench, contest, draws.granularity, digest)
    outcome = contest.outcome(known)
    return outcome.best, MaskSearch(
        granularity=draws.granularity,
        samples=outcome.control.samples,
        errors=tuple(score.error for score in outcome.scores),
        best=outcome.best,
        control=outcome.control.error,
        seconds=time.monotonic() - start + sum(each.seconds for each in helpful),
    )


def _try_or_spread(bench: Workbench, contest: Contest, granularity: Granularity, digest: str) -> dict[int, Score]:
    """Score a first family. Where the others would take too long, raise Spread, which leaves them to parts."""
    start = time.monotonic()
    first, *others = contest.families
    with bench.voice.share(0.0, 1 / len(contest.families)):
        scores = dict(zip(first, contest.score([first]), strict=True))
    expected_s = (time.monotonic() - start) * math.ceil(len(others) / max(bench.order.threads, 1))
    if not others or expected_s <= bench.order.spread_s:
        return scores
    shares = np.array_split(
        np.arange(len(others)), min(len(others), _PARTS_PER_WORKER * bench.order.workers, MAX_PARTS)
    )
    parts = tuple(
        MaskPart(granularity=granularity, draws=digest, first=others[share[0]].start, last=others[share[-1]].stop)
        for share in shares
    )
    stage = bench.voice.current_stage
    if stage is None:
        raise ValueError("masks are scored within a stage")
    bench.folder.parts.write_text(MaskParts(stage=stage, parts=parts).model_dump_json())
    bench.voice.log(f"the masks are scored in {len(parts)} parts, on {bench.order.workers} workers")
    bench.checkpoint()
    raise Spread


def _search(bench: Workbench, wanted: RandomMasks) -> Search:
    if bench.dataset is None:
        raise ValueError("random masks are scored on a dataset")
    return Search(
        bench.dataset,
        count=wanted.count,
        family=wanted.family,
        samples=wanted.samples,
        calibration_images=wanted.calibration_images if wanted.bn_reestimation else 0,
        seed=bench.spec.seed,
        threads=bench.order.threads,
        on_progress=bench.voice.progress,
    )
