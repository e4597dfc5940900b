"""The loop of a compression run, and its state on disk."""

import json
import shutil
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from transformers import set_seed
from transformers.utils import logging

from ..compression.activation_sparsity import activation_sparsity, replace_activation
from ..compression.block_drop import drop_blocks
from ..compression.block_table import kept_blocks, model_blocks
from ..compression.channel_pruning import check_widths, prune_channels
from ..evaluation.opening import evaluation_identity
from ..evaluation.provenance import current_provenance
from . import checkpointing
from .block_drop_choice import Choice, choose_blocks
from .block_drop_costs import arithmetic, times_beside
from .block_drop_errors import BlockDropError
from .block_drop_measuring import ClipAnswers, Measured, WindowAnswers, answers_of
from .block_drop_outcome import DROP, OUTCOME_NAME, PRUNE, RELU, START, CompressionOutcome, CompressionStep, write_json
from .block_drop_recovery import is_dynamic, recover
from .block_drop_report import write_report
from .data_order import mix_seed
from .model_setup import save_classifier


logger = logging.get_logger(__name__)

MODEL_FOLDER, PROGRESS_NAME = "model", "progress.json"
_UNFINISHED = "not finished"
# kinds of steps that change all blocks after the last drop, and what they do
_ENDINGS = {PRUNE: "the MLPs were pruned", RELU: "ReLU took the place of GELU"}


class BlockDropRun:
    """One run.

    Args:
        data: from `open_compression_data`.
        settings: a `BlockDropSettings`.
        arguments: of a recovery, with the folder of the run.
        args: what of them was given.
        source: what the model was opened from.
        progress: show progress bars.
        callbacks: of every recovery.
    """

    def __init__(self, data, settings, arguments, args, source, progress=False, callbacks=None):
        self.data, self.settings, self.arguments, self.args = data, settings, arguments, args
        self.folder, self.source, self.callbacks = Path(arguments.output_dir), source, callbacks
        self.device, self.batch_size = arguments.device, arguments.per_device_eval_batch_size
        self.processes = PartialState()
        self.progress = progress and self.processes.is_main_process
        self.uncompressed = data.model.to(self.device).eval()
        blocks = model_blocks(self.uncompressed, settings.part)
        self.first_blocks = tuple(block.original_index for block in blocks)
        self.depth = len(blocks)
        self.wanted = settings.num_to_drop(self.depth)
        if settings.mlp_width is not None:
            check_widths(self.uncompressed, settings.mlp_width, part=settings.part)
        self.steps, self._answers, self._example = [], {}, None

    def start(self, resume, overwrite) -> CompressionOutcome:
        """Runs, or goes on, until a rule says stop.

        Raises:
            BlockDropError: the folder holds another run, or one and neither `resume` nor `overwrite`.
        """
        self.identity = self._identity()
        with self._main_process_first():
            self._prepare_folder(resume, overwrite)
        self.steps = self._steps_on_disk()
        if not self.steps:
            self._keep(self._first_step())
        final, why = self._stop()
        while why is None:
            self._keep(self._next_step())
            final, why = self._stop()
        if self.settings.mlp_width is not None:
            final, why = self._ended_with(PRUNE, final, why)
        if self.settings.relu:
            final, why = self._ended_with(RELU, final, why)
        return self._finish(final, why)

    # ---- rules ------------------------------------------------------------------------------------------------------

    def _stop(self):
        """(step whose model is the result, why no further one is taken); (step, None) to go on."""
        drops = self._drops()
        for before, step in zip([None, *drops], drops, strict=False):
            if before is not None and not self._is_within(step):
                why = (
                    f"without block {', '.join(map(str, step.dropped))} {self.data.metric} was {-100 * step.after.difference:.1f} points "
                    f"lower after recovery, more than the margin of {100 * self.settings.margin:g}"
                )
                return before.step, why
            if self._on_target(step):
                return step.step, self._on_target(step)
            # dropping none at once is the control of those that drop some: one recovery of the whole model
            is_control = self.settings.together and not self.wanted
            if self.depth - len(step.kept) >= self.wanted and not (is_control and before is None):
                return step.step, f"as many as were to go ({self.wanted})"
        return drops[-1].step, None

    def _drops(self):
        """The steps without those that end a run."""
        return [step for step in self.steps if step.kind not in _ENDINGS]

    def _ended_with(self, kind, final, why):
        """The same for a run that ends with a change of all blocks."""
        found = [step for step in self.steps if step.kind == kind and step.previous == final]
        if not found:
            self._keep(self._ending_step(kind, final))
        step = (found or self.steps)[-1]
        if self._is_within(step):
            return step.step, f"{why}; then {_ENDINGS[kind]}"
        return final, f"{why}; when {_ENDINGS[kind]}, more than the margin was lost"

    def _on_target(self, step):
        for limit, value, unit in (
            (self.settings.target_ms, step.milliseconds, "ms"),
            (self.settings.target_macs, step.gmacs, "GMACs"),
        ):
            if limit is not None and value is not None and value <= limit:
                return f"{value:.4g} {unit} are within the target of {limit:g}"
        return None

    def _is_within(self, step):
        margin = self.settings.margin
        return margin is None or step.after.difference >= -margin

    # ---- steps ------------------------------------------------------------------------------------------------------

    def _first_step(self) -> CompressionStep:
        folder = self._step_folder(0)
        self._save(self.uncompressed, folder)
        answers, seconds = self._timed(self._judge, self.uncompressed)
        self._remember(0, answers)
        costs, measuring = self._timed(self._costs, self.uncompressed)
        return CompressionStep(
            step=0,
            kind=START,
            dropped=(),
            kept=self.first_blocks,
            after=answers.measured(self.data.metric),
            seconds={"evaluate": seconds, "measure": measuring},
            model=f"step-0/{MODEL_FOLDER}",
            **costs,
        )

    def _next_step(self) -> CompressionStep:
        number, previous = len(self.steps), self._drops()[-1]
        student = self._open(previous.step)
        gone = self.depth - len(previous.kept)
        progress = self._progress_of(number)
        if progress is None:
            wanted = self.wanted - gone if self.settings.together else 1
            choice, scoring = self._timed(self._choose, student, wanted)
            progress = {"dropped": choice.dropped, "scores": choice.scores, "full_score": choice.full_score}
            progress["seconds"] = {"score": scoring}
        dropped = tuple(progress["dropped"])
        running = {block.original_index: block.index for block in model_blocks(student, self.settings.part)}
        drop_blocks(student, [running[block] for block in dropped], self.settings.part)
        return self._recovered(number, previous.step, student, DROP, dropped, progress)

    def _ending_step(self, kind, final) -> CompressionStep:
        number = len(self.steps)
        student = self._open(final)
        progress = self._progress_of(number) or {"seconds": {}}
        if kind == PRUNE:
            narrower = prune_channels(student, part=self.settings.part, intermediate_size=self.settings.mlp_width)
            return self._recovered(number, final, narrower, PRUNE, (), progress)
        sparsity = {"before": self._sparsity(student)}
        step = self._recovered(
            number, final, replace_activation(student, "relu", self.settings.part), RELU, (), progress
        )
        sparsity["after"] = self._sparsity(self._open(number))
        return replace(step, activation_sparsity=sparsity)

    def _recovered(self, number, previous, student, kind, dropped, progress) -> CompressionStep:
        """What is left of a model, trained, saved, and judged before and after."""
        folder, seconds = self._step_folder(number), dict(progress["seconds"])
        if "before" not in progress:
            answers, seconds["evaluate"] = self._timed(self._judge, student)
            measured = answers.measured(self.data.metric, self._answers_of(0))
            progress |= {"before": measured.to_dict(), "seconds": seconds}
            self._write(folder / PROGRESS_NAME, progress)
        trained = {}
        if self.settings.recovery:
            trained, seconds["recover"] = self._timed(self._recover, number, previous, student, folder)
        self._save(student, folder)
        # what is judged is what was saved
        saved = self._open(number)
        answers, evaluating = self._timed(self._judge, saved)
        self._remember(number, answers)
        costs, seconds["measure"] = self._timed(self._costs, saved)
        seconds["evaluate"] += evaluating
        return CompressionStep(
            step=number,
            kind=kind,
            dropped=dropped,
            kept=tuple(kept_blocks(saved, self.settings.part)),
            before=Measured.from_dict(progress["before"]),
            after=answers.measured(self.data.metric, self._answers_of(0)),
            scores={int(block): value for block, value in progress.get("scores", {}).items()},
            full_score=progress.get("full_score"),
            seconds=seconds,
            previous=previous,
            model=f"step-{number}/{MODEL_FOLDER}",
            **trained,
            **costs,
        )

    def _recover(self, number, previous, student, folder) -> dict:
        dynamic = is_dynamic(self.settings, student.config)
        teacher = self._open(previous) if dynamic else self.uncompressed
        # another order of clips and other adapters in every step, and the same ones when it is continued
        seed = mix_seed(self.arguments.seed, number) % 2**31
        options = {"settings": self.settings, "seed": seed, "resume": True, "progress": self.progress}
        args = self.args | {"seed": seed}
        done = recover(student, teacher, self.data, output_dir=folder, args=args, callbacks=self.callbacks, **options)
        self._write(folder / "training.json", {"seconds": done.seconds, "train_loss": done.train_loss, "history": done.history})  # fmt: skip
        return {"trainable": done.trainable, "train_steps": done.steps}

    def _choose(self, student, wanted) -> Choice:
        set_seed(self.arguments.seed)
        choice = choose_blocks(
            student,
            self.data,
            self.settings,
            wanted,
            depth=max(self.first_blocks) + 1,
            seed=self.arguments.seed,
            device=self.device,
            batch_size=self.batch_size,
            num_workers=self.arguments.dataloader_num_workers,
            progress=self.progress,
        )
        return self._agreed(choice)

    def _agreed(self, found):
        """What the main process found: arithmetic and times differ from process to process, what is decided by them must not."""
        return broadcast_object_list([found])[0] if self.processes.num_processes > 1 else found

    # ---- what a model is worth and costs ----------------------------------------------------------------------------

    def _judge(self, model):
        # a model may draw: tokens that are kept at random
        set_seed(self.arguments.seed)
        workers = self.arguments.dataloader_num_workers
        batches = self.data.batches("held_out", self.batch_size, self.device, workers)
        return answers_of(self.data.task(model, "held_out"), batches, self.data.tious)

    def _costs(self, model) -> dict:
        if self._example is None:
            self._example = self.data.example(self.device)
        found = arithmetic(model, self._example)
        found |= times_beside(self.uncompressed, model, self._example, self.settings.timing_rounds)
        if "speedup" in found and self.steps[0].milliseconds is not None:
            # hours may lie between two steps, and others use the machine: only what took turns compares
            found["milliseconds"] = self.steps[0].milliseconds / found["speedup"]
        return found

    def _sparsity(self, model) -> float:
        model.eval()
        batches = self.data.batches("held_out", self.batch_size, self.device)
        return activation_sparsity(model, batches, self.settings.part).overall

    def _remember(self, number, answers):
        self._answers[number] = answers
        if self.processes.is_main_process:
            answers.save(self._step_folder(number))

    def _answers_of(self, number):
        if number not in self._answers:
            kind = ClipAnswers if self.data.tious is None else WindowAnswers
            self._answers[number] = kind.load(self._step_folder(number), self.data)
        return self._answers[number]

    @staticmethod
    def _timed(function, *arguments):
        started = time.monotonic()
        found = function(*arguments)
        return found, time.monotonic() - started

    # ---- files ------------------------------------------------------------------------------------------------------

    def _identity(self) -> dict:
        """What two runs have in common that come to the same models."""
        unimportant = (
            "output_dir",
            "disable_tqdm",
            "logging_steps",
            "logging_dir",
            "save_steps",
            "save_strategy",
            "save_total_limit",
        )
        return {
            "weights": evaluation_identity(self.uncompressed, {}, [], "", "")["weights"],
            "training": {name: value for name, value in self.args.items() if name not in unimportant} | {"seed": self.arguments.seed},
            "data": {"name": self.data.name, "items": self.data.items, "was_held_out": self.data.was_held_out, **self.data.sizes()},
            "metric": self.data.metric,
        }  # fmt: skip

    def _prepare_folder(self, resume, overwrite):
        if resume and overwrite:
            raise BlockDropError("resume=True and overwrite=True contradict each other.")
        there = sorted(self.folder.glob("step-*"))
        record = self.folder / OUTCOME_NAME
        if overwrite and self.processes.is_main_process:
            for path in there:
                shutil.rmtree(path)
            record.unlink(missing_ok=True)
        elif there and not resume:
            raise BlockDropError(
                f"{self.folder} already holds {len(there)} steps of a compression: pass resume=True to continue it, overwrite=True to delete "
                "them, or another output_dir."
            )
        elif record.is_file():
            self._refuse_another(CompressionOutcome.load(self.folder))

    def _refuse_another(self, recorded):
        told = [f"settings.{name}" for name in self.settings.difference(recorded.settings)]
        known = {
            "weights": recorded.weights,
            "training": recorded.training,
            "data": recorded.data,
            "metric": recorded.metric,
        }
        # compared as JSON has them: a tuple comes back as a list
        told += [
            name for name, value in self.identity.items() if json.loads(json.dumps(value, default=str)) != known[name]
        ]
        if told:
            raise BlockDropError(
                f"{self.folder} holds a compression that was told otherwise ({', '.join(told)}): continue it as it was begun, or choose another "
                "output_dir."
            )

    def _steps_on_disk(self) -> list[CompressionStep]:
        """Steps that are done, also those of a run that was to drop more."""
        self.processes.wait_for_everyone()
        if not (self.folder / OUTCOME_NAME).is_file():
            return []
        return list(CompressionOutcome.load(self.folder).steps)

    def _progress_of(self, number):
        path = self._step_folder(number) / PROGRESS_NAME
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None

    def _step_folder(self, number) -> Path:
        folder = self.folder / f"step-{number}"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _open(self, number):
        model = self.data.open(self._step_folder(number) / MODEL_FOLDER)
        return model.to(self.device).eval()

    def _save(self, model, folder):
        if self.processes.is_main_process:
            target = folder / MODEL_FOLDER
            if target.exists():
                shutil.rmtree(target)
            save_classifier(model, self.data.processor, str(target))
        self.processes.wait_for_everyone()

    def _write(self, path, document):
        if self.processes.is_main_process:
            write_json(path, document)
        self.processes.wait_for_everyone()

    def _keep(self, step):
        """A step is done once the record names it."""
        step = self._agreed(step)
        self.steps.append(step)
        if self.processes.is_main_process:
            outcome = self._outcome(step.step, _UNFINISHED)
            outcome.save()
            for folder in checkpointing.checkpoint_folders(self._step_folder(step.step)):
                shutil.rmtree(folder)
        self.processes.wait_for_everyone()

    def _outcome(self, final, why, errors=None) -> CompressionOutcome:
        return CompressionOutcome(
            folder=str(self.folder),
            model_type=self.uncompressed.config.model_type,
            source=self.source,
            depth=self.depth,
            settings=self.settings.to_dict(),
            steps=tuple(self.steps),
            final=final,
            stopped=why,
            errors=errors,
            provenance=vars(current_provenance(seed=self.arguments.seed, device=self.device)),
            **self.identity,
        )

    def _finish(self, final, why) -> CompressionOutcome:
        answers = (self._answers_of(0), self._answers_of(final)) if self.data.tious is not None else None
        outcome = self._outcome(final, why)
        if self.processes.is_main_process:
            target = self.folder / MODEL_FOLDER
            if target.exists():
                shutil.rmtree(target)
            shutil.copytree(self._step_folder(final) / MODEL_FOLDER, target)
            outcome = write_report(outcome, answers)
        self.processes.wait_for_everyone()
        return outcome

    @contextmanager
    def _main_process_first(self):
        with self.processes.main_process_first():
            yield
