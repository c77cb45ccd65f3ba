"""Training while annotations change."""

from __future__ import annotations

import dataclasses
import gc
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from napari_muvit.core import PredictionConfig, predict
from napari_muvit.core.config import ModelConfig, TrainingConfig
from napari_muvit.core.data.annotations import AnnotationIndex, Annotations
from napari_muvit.core.errors import AnnotationError, Cancelled, ConfigError
from napari_muvit.core.model.checkpoint import load_model, weights_hash
from napari_muvit.core.model.segmenter import MuViTSegmenter
from napari_muvit.core.progress import Progress
from napari_muvit.core.training import memory, prepare
from napari_muvit.core.training.interactive import InteractiveTrainer

Slide = tuple[np.ndarray, np.ndarray]
Start = Callable[..., InteractiveTrainer]


def square(label: int, y: float, x: float, edge: float = 30.0) -> tuple[int, Any]:
    return label, [[y, x], [y, x + edge], [y + edge, x + edge], [y + edge, x]]


def outlines(*squares: tuple[int, Any]) -> Annotations:
    return Annotations.from_polygons(squares, class_names=("background", "cell"))


@pytest.fixture
def start(slide: Slide, tiny_config: ModelConfig) -> Start:
    def make(*marks: Annotations, **changes: Any) -> InteractiveTrainer:
        config = TrainingConfig.from_dict(
            {"steps": 6, "batch_size": 4, "device": "cpu", "num_threads": 1,
             "precision": "32-true", **changes}
        )  # fmt: skip
        return InteractiveTrainer(
            [slide[0]] * len(marks), marks, config, model=tiny_config
        )

    return make


def steps_of(events: list[Progress]) -> int:
    return sum(event.stage == "train" for event in events)


def test_annotations_count_from_the_next_batch(start: Start) -> None:
    # Only one of the two classes at first.
    trainer = start(outlines(square(1, 10, 10)))
    marked: list[list[int]] = []
    dice: list[set[str]] = []

    def listen(event: Progress) -> None:
        dataset = trainer._dataset
        assert dataset is not None
        marked.append((dataset.sampler.slides[0].index.counts[1:] > 0).tolist())
        dice.append({name for name in event.metrics if name.startswith("Dice")})
        if len(marked) == 3:
            trainer.annotate(0, outlines(square(1, 10, 10), square(2, 90, 90)))

    trainer.run(listen)
    assert marked == [[True, False]] * 3 + [[True, True]] * 3
    assert "Dice cell" in dice[-1]
    assert trainer.config.names == ("background", "cell")
    assert trainer.config.background_value is not None


def test_it_waits_for_the_first_annotation_and_for_erased_ones(start: Start) -> None:
    trainer = start(outlines(), steps=4)
    said: list[str] = []

    def listen(event: Progress) -> None:
        if event.message:
            said.append(event.message)
            # Off the slide, erased again, and at last one that counts.
            marks = [square(1, 5000, 5000)], [square(1, 9, 9), square(0, 0, 0, 99)], [
                square(1, 9, 9), square(2, 90, 90)
            ]  # fmt: skip
            trainer.annotate(0, outlines(*marks[len(said) - 1]))

    trainer.run(listen)
    assert trainer.steps == 4
    assert [text.split(".")[0] for text in said] == ["Waiting for annotations"] * 3
    assert "No annotation lies on a slide" in said[1]
    assert "every label is 0" in said[2]


def test_time_that_the_listener_takes_is_not_time_of_the_training(
    start: Start,
) -> None:
    # A pause would otherwise use up the minutes, and so would pictures of the screen.
    marks = outlines(square(1, 9, 9), square(2, 90, 90))
    trainer = start(marks, steps=None, minutes=0.02)
    took: list[float] = []

    def listen(event: Progress) -> None:
        if event.stage == "train":
            began = time.monotonic()
            time.sleep(0.3)
            took.append(time.monotonic() - began)

    began = time.monotonic()
    trainer.run(listen)
    assert sum(took) > 0.5
    assert time.monotonic() - began - sum(took) >= 0.9 * 1.2


def test_it_says_where_it_errs_most(start: Start) -> None:
    marks = outlines(square(1, 9, 9), square(2, 90, 90))
    trainer = start(outlines(), marks, steps=3)
    trainer.run()
    places = trainer.hard_places(3)
    assert 0 < len(places) <= 3
    assert {place.slide for place in places} == {1}
    shares = [place.wrong for place in places]
    assert shares == sorted(shares, reverse=True)
    for place in places:
        assert all(0 <= low < high for low, high in zip(
            place.box.lower, place.box.upper, strict=True
        ))  # fmt: skip


def test_a_snapshot_is_normalised_as_it_was_in_training(start: Start) -> None:
    # The running statistics lag behind weights that change fast: a class that was
    # right in training was never predicted.
    marks = outlines(square(1, 9, 9), square(2, 90, 90))
    trainer = start(marks, steps=12, learning_rate=0.05)
    trainer.run()
    network = trainer.snapshot()
    batches = trainer._batches.all()
    assert sum(len(pixels) for pixels, _ in batches) == 32
    with torch.no_grad():
        quiet = torch.cat([network(*batch) for batch in batches])
        network.train()
        taught = torch.cat([network(*batch) for batch in batches])
    # By one batch's own statistics, or by those of all: much the same answers.
    same = (quiet.argmax(1) == taught.argmax(1)).float().mean()
    assert same > 0.8
    lagging = trainer._segmenter.eval()
    with torch.no_grad():
        late = torch.cat([lagging(*batch) for batch in batches])
    assert torch.isfinite(late).all()


def test_annotations_may_be_taken_away_while_it_trains(start: Start) -> None:
    marks = outlines(square(1, 9, 9), square(2, 90, 90))
    trainer = start(marks, marks, steps=8)
    events: list[Progress] = []
    slides: list[int] = []

    def listen(event: Progress) -> None:
        events.append(event)
        if event.message:
            trainer.annotate(1, marks)
        elif event.stage == "train":
            assert trainer._dataset is not None
            slides.append(len(trainer._dataset.sampler.slides))
            if steps_of(events) == 2:
                trainer.annotate(0, outlines())
            if steps_of(events) == 4:
                trainer.annotate(1, outlines())

    trainer.run(listen)
    assert slides == [2, 2, 1, 1, 1, 1, 1, 1]
    assert sum(bool(event.message) for event in events) == 1


def test_what_does_not_fit_is_said_and_training_goes_on_after_it(start: Start) -> None:
    good = outlines(square(1, 9, 9), square(2, 90, 90))
    trainer = start(good)
    with pytest.raises(AnnotationError, match="Slide 1 was annotated; there are 1"):
        trainer.annotate(1, good)

    def spoil(event: Progress) -> None:
        if event.stage == "train" and trainer.steps == 3:
            trainer.annotate(0, Annotations.from_polygons([square(7, 9, 9)]))

    with pytest.raises(AnnotationError, match="class 7") as error:
        trainer.run(spoil)
    assert "\n" not in str(error.value)
    assert trainer.steps == 3
    trainer.annotate(0, good)
    trainer.run()
    assert trainer.steps == 9


def test_a_snapshot_is_never_half_a_step(start: Start) -> None:
    trainer = start(outlines(square(1, 9, 9), square(2, 90, 90)), steps=25)
    whole = {weights_hash(trainer.snapshot())}
    taken: list[str] = []
    over = threading.Event()

    def look() -> None:
        while not over.is_set():
            taken.append(weights_hash(trainer.snapshot()))

    threads = [threading.Thread(target=look) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        # Between two steps, in the thread that trains.
        trainer.run(lambda _: whole.add(weights_hash(trainer.snapshot())))
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert len(whole) == 26
    assert len(set(taken)) > 3
    assert set(taken) <= whole
    assert not trainer.snapshot().training


def test_a_snapshot_does_not_wait_for_a_step(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = start(outlines(square(1, 9, 9), square(2, 90, 90)), steps=1)
    within, go_on = threading.Event(), threading.Event()
    losses = trainer._module.losses

    def slow(batch: Any, index: int) -> Any:
        within.set()
        assert go_on.wait(60)
        return losses(batch, index)

    monkeypatch.setattr(trainer._module, "losses", slow)
    thread = threading.Thread(target=trainer.run)
    thread.start()
    try:
        assert within.wait(60)
        trainer.snapshot()
    finally:
        go_on.set()
        thread.join()
    assert trainer.steps == 1


def test_it_stops_and_goes_on(start: Start) -> None:
    marks = outlines(square(1, 9, 9), square(2, 90, 90))
    whole = start(marks, steps=10)
    whole.run()
    trainer = start(marks, steps=10)
    asked = threading.Event()
    with pytest.raises(Cancelled):
        trainer.run(lambda _: asked.set() if trainer.steps == 4 else None, asked.is_set)
    assert trainer.steps == 4
    trainer.training_config = TrainingConfig.from_dict(
        {**trainer.training_config.to_dict(), "steps": 6}
    )
    trainer.run()
    assert trainer.steps == 10
    assert weights_hash(trainer.snapshot()) == weights_hash(whole.snapshot())


def test_a_stop_is_heard_while_it_waits(start: Start) -> None:
    trainer = start(outlines())
    asked = threading.Event()
    threading.Timer(0.3, asked.set).start()
    begun = time.monotonic()
    with pytest.raises(Cancelled):
        trainer.run(should_stop=asked.is_set)
    assert time.monotonic() - begun < 10


def test_what_is_saved_predicts(start: Start, slide: Slide, tmp_path: Path) -> None:
    marks = Annotations.from_labels(slide[1], class_names=("background", "cell"))
    trainer = start(marks, steps=60)
    trainer.run()
    folder = trainer.save(tmp_path / "m")
    model = load_model(folder)
    assert weights_hash(model) == weights_hash(trainer.snapshot())
    assert model.config.background_value == trainer.config.background_value
    config = PredictionConfig(device="cpu", num_threads=1)
    found = predict(slide[0], model, config, out=tmp_path / "labels.zarr")
    for _ in found:
        pass
    import zarr

    labels = np.asarray(zarr.open_array(tmp_path / "labels.zarr" / "0")[:])
    hits = (labels.reshape(slide[1].shape) == 2) & (slide[1] == 2)
    assert hits.sum() > 0.5 * (slide[1] == 2).sum()


def test_only_what_has_changed_is_looked_at_again(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    indexed: list[int] = []
    estimated: list[int] = []
    index, estimate = Annotations.index, prepare.estimate_normalisation

    def count_index(self: Annotations, *args: Any, **options: Any) -> AnnotationIndex:
        indexed.append(len(self.items))
        return index(self, *args, **options)

    def count_estimate(*args: Any, **options: Any) -> Any:
        estimated.append(1)
        return estimate(*args, **options)

    monkeypatch.setattr(Annotations, "index", count_index)
    monkeypatch.setattr(prepare, "estimate_normalisation", count_estimate)
    one = outlines(square(1, 9, 9))
    trainer = start(one, one, outlines(), steps=1)
    trainer.run()
    assert (indexed, len(estimated)) == ([1, 1], 2)
    trainer.annotate(1, outlines(square(1, 9, 9), square(2, 90, 90)))
    trainer.run()
    assert (indexed, len(estimated)) == ([1, 1, 2], 2)
    trainer.annotate(2, one)
    trainer.run()
    assert (indexed, len(estimated)) == ([1, 1, 2, 1], 3)


def test_memory_does_not_grow_with_the_strokes(start: Start) -> None:
    trainer = start(outlines(square(1, 9, 9)), steps=500, batch_size=1)
    kept: list[int] = []

    def listen(_event: Progress) -> None:
        place = 5.0 + trainer.steps % 100
        trainer.annotate(0, outlines(square(1, 9, 9), square(2, place, place)))
        if trainer.steps in (100, 500):
            gc.collect()
            kinds = [type(thing) for thing in gc.get_objects()]
            kept.append(kinds.count(AnnotationIndex) + kinds.count(Annotations))

    trainer.run(listen)
    assert trainer.steps == 500
    assert len(kept) == 2
    assert kept[0] == kept[1] < 20


def test_several_devices_and_loss_scales_are_refused(start: Start) -> None:
    for changes in ({"devices": 2}, {"precision": "16-mixed"}):
        with pytest.raises(ConfigError, match="one device"):
            start(outlines(), **changes)


def test_its_batch_is_made_to_fit(
    start: Start, tiny_config: ModelConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The whole batch went through at once, whatever was free.
    marks = outlines(square(1, 10, 10), square(2, 90, 90))
    whole = start(marks, steps=3)
    whole.run()
    needed = memory.estimate_memory(MuViTSegmenter, tiny_config, ema=True).total
    monkeypatch.setattr(
        memory, "free_memory", lambda _device: int(needed(2) / memory.SAFE_SHARE) + 1
    )
    trainer = start(marks, steps=3)
    sizes: list[int] = []
    losses = trainer._module.losses

    def seen(batch: Any, index: int) -> Any:
        sizes.append(len(batch.pixels))
        return losses(batch, index)

    monkeypatch.setattr(trainer._module, "losses", seen)
    events: list[Progress] = []
    trainer.run(events.append)
    assert sizes == [2] * 6
    assert sum("2 passes of 2 crops" in e.message for e in events) == 1
    # The same crops, and so nearly the same step; normalisation sees fewer at a time.
    assert trainer.steps == whole.steps == 3
    told = [e.metrics["loss"] for e in events if e.stage == "train"]
    assert all(np.isfinite(told))
    monkeypatch.setattr(memory, "free_memory", lambda _device: needed(1) // 2)
    with pytest.raises(ConfigError, match="one nested crop"):
        start(marks)


def test_passes_add_up_to_the_step(
    slide: Slide, tiny_config: ModelConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Annotated everywhere and weighed alike, the mean of the passes is that of all.
    marks = outlines(square(1, -10, -10, 200), square(2, 40, 40, 60))
    model = dataclasses.replace(tiny_config, pyramid_norm="group")
    losses, gradients = [], []
    for passes in (1, 2, 4):
        config = TrainingConfig(
            steps=1, batch_size=4, device="cpu", num_threads=1, precision="32-true",
            accumulate=passes, dice_weight=0.0, foreground_weight=1.0, level_weight=0.0,
        )  # fmt: skip
        trainer = InteractiveTrainer([slide[0]], [marks], config, model=model)
        events: list[Progress] = []

        def keep(*_args: Any, of: InteractiveTrainer = trainer) -> None:
            found = of._segmenter.named_parameters()
            gradients.append(
                {n: p.grad.clone() for n, p in found if p.grad is not None}
            )

        monkeypatch.setattr(trainer._module, "configure_gradient_clipping", keep)
        trainer.run(events.append)
        losses.append(events[-1].metrics["loss"])
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-5)
    assert len(gradients) == 3
    for name, value in gradients[0].items():
        for other in gradients[1:]:
            assert torch.allclose(value, other[name], rtol=1e-3, atol=1e-6), name


def test_memory_that_runs_out_is_advice(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = start(outlines(square(1, 10, 10), square(2, 90, 90)))

    def fails(*_args: Any) -> Any:
        raise RuntimeError("CUDA out of memory")

    monkeypatch.setattr(trainer._module, "losses", fails)
    with pytest.raises(ConfigError, match="Memory ran out"):
        trainer.run()
