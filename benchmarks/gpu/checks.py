"""What must hold on a GPU: each check is a function of a device and an empty folder.

A check raises AssertionError with the numbers that it found, or returns them. It knows nothing of pytest:
``python -m benchmarks.gpu_check`` calls it on a machine without test tools, and ``tests/benchmarks/test_gpu_check.py``
on one that has them. The checks that need no CUDA also run on a CPU, where the tests see them work.
"""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from batchscope.certificate.certify import certified_windows, certify_model
from batchscope.certificate.engines import Plan
from batchscope.certificate.verdict import TOLERANCES
from batchscope.errors import UserError
from batchscope.evaluation.predict import predict
from batchscope.hardware import device as devices
from batchscope.hardware.device import autocast, pick_place
from batchscope.hardware.lease import LEASED, SHARED, VISIBLE, leased_devices
from batchscope.hardware.telemetry import Telemetry
from batchscope.insight.attention import attention_maps
from batchscope.provenance.fingerprint import file_hash
from batchscope.training.accumulate import ManualEngine
from batchscope.training.gradients import compare, flat_gradient
from batchscope.training.loop import train
from batchscope.training.microbatch import DeviceTokens, MicroBatch, micro_step
from batchscope.training.ranks import Ranks
from batchscope.training.readback import Guard
from batchscope.training.records import HistoryLine, MicroStepKind
from batchscope.training.spec import TrainSettings
from batchscope.training.stop import Stopped
from benchmarks.gpu import small

Facts = dict[str, Any]
"""What a check measured, for the record."""


class Check(NamedTuple):
    """One property that a GPU can show."""

    name: str
    claim: str
    """What holds, in one line."""
    run: Callable[[torch.device, Path], Facts]
    needs: Literal["any device", "a CUDA device", "two CUDA devices"] = "a CUDA device"


def within(found: float | None, limit: float, what: str) -> float:
    """``found``, which must be a number up to ``limit``."""
    assert found is not None and found <= limit, f"{what}: {found} is above {limit}"
    return found


# ------------------------------------------------------------------------------------------------- the gradient


def micro_batches(data: DeviceTokens, count: int = 3, size: int = small.MICRO_BATCH) -> list[MicroBatch]:
    """The first micro-batches of the reviews, scaled as parts of one window."""
    order = data.order(np.arange(count * size))
    return [data.micro_batch(order[n * size : (n + 1) * size], 1 / (count * size)) for n in range(count)]


def gradient(model: nn.Module, batches: list[MicroBatch], precision: torch.dtype = torch.float32) -> Tensor:
    """The window's gradient, computed eagerly: float64 ``[parameters]``."""
    model.zero_grad()
    context = autocast(batches[0].label.device, precision)
    for batch in batches:
        micro_step(model, batch, context)
    found = flat_gradient(model)
    model.zero_grad()
    return found


def the_device_has_the_gradient_of_the_cpu(device: torch.device, _: Path) -> Facts:
    """Attention kernels, masks and embeddings of the device, in float32 without TF32."""
    facts = {}
    for architecture in small.ENCODERS:
        found, expected = (
            gradient(small.model_of(architecture, place), micro_batches(small.data_on(place)))
            for place in (device, torch.device("cpu"))
        )
        facts[architecture] = within(compare(found, expected)["relative_l2"], 1e-5, architecture)
    return facts


def bfloat16_has_the_gradient_of_float32(device: torch.device, _: Path) -> Facts:
    """One window, and the losses of twenty updates."""
    facts = {}
    for architecture in small.ENCODERS:
        model, batches = small.model_of(architecture, device), micro_batches(small.data_on(device))
        found, expected = (gradient(model, batches, precision) for precision in (torch.bfloat16, torch.float32))
        facts[architecture] = within(compare(found, expected)["relative_l2"], 3e-2, f"{architecture}, one window")
    return facts


def bfloat16_trains_like_float32(device: torch.device, folder: Path) -> Facts:
    """Twenty updates: the losses stay together, and fall."""
    tokens, facts = small.tokens_folder(folder / "tokens"), {}
    for architecture in small.ENCODERS:
        found = []
        for precision in ("bfloat16", "float32"):
            spec = small.spec_of(architecture, precision=precision)
            found.append(small.losses(spec, tokens, folder / f"{architecture}-{precision}", device)[0])
        facts[architecture] = within(float(np.abs(np.subtract(*found)).max()), 0.05, f"{architecture}, 20 updates")
        assert found[0][-1] < 0.9 * found[0][0], f"{architecture}: the loss does not fall: {found[0]}"
    return facts


def our_engines_have_the_gradient_of_the_full_batch(device: torch.device, _: Path) -> Facts:
    """The certificate of every engine that may train here, in float64, float32 and bfloat16."""
    facts: Facts = {}
    plan = Plan(certified_windows(4), 4, 4)
    tokens = small.made_up.rows(small.reviews(), slice(plan.windows["tail"].stop))
    for architecture in small.ENCODERS:
        model = small.model_of(architecture, device).eval()
        rows, not_measured = certify_model(model, tokens, plan, device, "bfloat16", dict(TOLERANCES))
        assert not not_measured, not_measured
        failed = [f"{row['engine']} in {row['precision']}: {row['verdict']}" for row in rows if not row["passed"]]
        assert not failed, f"{architecture}: {'; '.join(failed)}"
        facts[architecture] = sorted({row["engine"] for row in rows})
    return facts


# ------------------------------------------------------------------------------------------------- the CUDA graph


def engine_of(model: nn.Module, kind: MicroStepKind, batch: MicroBatch, precision: torch.dtype) -> ManualEngine:
    """An engine that computes micro-batches like ``batch`` in this way. AssertionError where it cannot."""
    engine = ManualEngine(model, torch.optim.Adam(model.parameters(), fused=True))
    chosen = engine.prepare(batch, autocast(batch.label.device, precision), kind)["micro_step"]
    assert chosen == kind, f"{kind} was asked for, and {chosen} was chosen: the log says why"
    return engine


def a_graph_has_the_eager_gradient(device: torch.device, _: Path) -> Facts:
    """Over several micro-batches, so that a graph that forgets or repeats one is found out."""
    facts = {}
    for architecture in small.ENCODERS:
        for precision, limit in ((torch.float32, 1e-5), (torch.bfloat16, 1e-2)):
            model, batches = small.model_of(architecture, device), micro_batches(small.data_on(device))
            expected = gradient(model, batches, precision)
            engine = engine_of(model, "cuda_graph", batches[0], precision)
            engine.accumulate(batches, autocast(device, precision))
            name = f"{architecture} in {str(precision).removeprefix('torch.')}"
            facts[name] = within(compare(flat_gradient(model), expected)["relative_l2"], limit, name)
    return facts


def a_graph_trains_like_eager(device: torch.device, folder: Path) -> Facts:
    """A hundred updates in bfloat16; each window ends with a micro-batch that the graph does not fit."""
    tokens, facts = small.tokens_folder(folder / "tokens"), {}
    kinds: tuple[MicroStepKind, ...] = ("cuda_graph", "eager")
    for architecture in small.ENCODERS:
        spec = small.spec_of(architecture, precision="bfloat16", budget={"updates": 100}, learning_rate=3e-4)
        found = []
        for kind in kinds:
            losses, run = small.losses(spec, tokens, folder / f"{architecture}-{kind}", device, kind)
            assert run.ledger.trial["micro_step"] == kind
            found.append(losses)
        facts[architecture] = within(float(np.abs(np.subtract(*found)).max()), 0.03, f"{architecture}, 100 updates")
        assert found[0][-1] < 0.9 * found[0][0], f"{architecture}: the loss does not fall"
    return facts


def a_graph_draws_dropout_from_the_seed(device: torch.device, _: Path) -> Facts:
    """The same seed gives the same masks again, the next replay and another seed others: a resumed run needs that."""
    facts = {}
    for architecture in small.ENCODERS:
        model, batches = small.model_of(architecture, device, dropout=0.3), micro_batches(small.data_on(device), 1)
        engine = engine_of(model, "cuda_graph", batches[0], torch.float32)

        def drawn(seed: int | None, engine: ManualEngine = engine, batches: list[MicroBatch] = batches) -> Tensor:
            if seed is not None:
                torch.manual_seed(seed)
            engine.zero_grad()
            engine.accumulate(batches, autocast(device, torch.float32))
            return flat_gradient(engine.model)

        first, following, again, other = drawn(3), drawn(None), drawn(3), drawn(4)
        within(compare(again, first)["relative_l2"], 1e-5, f"{architecture}, the same seed")
        changes = [compare(gradient, first)["relative_l2"] for gradient in (following, other)]
        assert all(change is not None and change > 1e-2 for change in changes), f"{architecture}: {changes}"
        facts[architecture] = changes
    return facts


# ---------------------------------------------------------------------------------------------- the host does not wait


@contextmanager
def no_synchronisation() -> Iterator[None]:
    """RuntimeError where the host waits for the device."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def no_micro_step_waits_for_the_device(device: torch.device, _: Path) -> Facts:
    """Eager and as a graph, in bfloat16."""
    data = small.data_on(device)
    order = data.order(np.arange(18))
    kinds: tuple[MicroStepKind, ...] = ("eager", "cuda_graph")
    for architecture in small.ENCODERS:
        for kind in kinds:
            model = small.model_of(architecture, device, dropout=0.1)
            engine = engine_of(model, kind, micro_batches(data)[0], torch.bfloat16)
            context = autocast(device, torch.bfloat16)
            engine.accumulate(micro_batches(data), context)  # an engine's first step may set libraries up
            with no_synchronisation():
                engine.accumulate([data.micro_batch(order[a : a + 6], 1 / 18) for a in (0, 6, 12)], context)
    return {}


def no_update_waits_for_the_device(device: torch.device, folder: Path) -> Facts:
    """A whole update of the loop: gradient, norm, clipping, guard, optimizer, and the numbers' way to the host."""
    tokens = small.tokens_folder(folder / "tokens")
    for architecture in small.ENCODERS:
        optimizer = {"name": "adamw", "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.01, "max_grad_norm": 1.0}
        spec = small.spec_of(architecture, 0.1, precision="bfloat16", optimizer=optimizer)
        run = small.started(spec, tokens, folder / architecture, pick_place(device.type, "bfloat16"))
        with run.stop, run.telemetry, closing(run.line), closing(run.ranks), closing(run.workspace):
            run.choose_micro_step()
            for window in run.plan[:2]:
                run.launch(window)
            run.settle()
            with no_synchronisation():
                for window in run.plan[2:5]:
                    run.launch(window)
            run.settle()
            assert run.ledger.update == 5
    return {}


def predictions_wait_for_the_device_once(device: torch.device, _: Path) -> Facts:
    """However many batches there are; and they are those of the CPU."""
    import warnings

    tokens = small.reviews(4096)
    model = small.model_of("bert", device)
    found = predict(model, tokens, device, torch.float32)
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            predict(model, tokens, device, torch.float32)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    waits = sum("synchroniz" in str(warning.message) for warning in caught)
    # transformers' own code may ask the device once per batch; ours asks once for all logits.
    expected = predict(small.model_of("bert", torch.device("cpu")), tokens, torch.device("cpu"), torch.float32)
    difference = within(float(np.abs(found - expected).max()), 1e-4, "logits of device and CPU")
    assert waits <= 1, f"{waits} waits for 4,096 reviews"
    return {"waits": waits, "largest difference of a logit": difference}


# ------------------------------------------------------------------------------------------------------- memory


def out_of_memory_halves_the_micro_batch(device: torch.device, folder: Path) -> Facts:
    """A real one: the process may use little more than micro-batches of 64 need, and is asked for 1,024."""
    facts = {}
    tokens, target = small.tokens_folder(folder / "tokens", count=1024, width=128), 1024
    kinds: tuple[MicroStepKind, ...] = ("eager", "cuda_graph")
    for kind in kinds:
        spec = small.spec_of("bert", target_batch_size=target, budget={"updates": 2})
        torch.cuda.reset_peak_memory_stats(device)
        expected, _ = small.losses(spec, tokens, folder / f"{kind}-64", device, kind, micro_batch=64)
        peak, total = torch.cuda.max_memory_reserved(device), torch.cuda.get_device_properties(device).total_memory
        torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction(min(1.0, 1.5 * peak / total))
        try:
            found, run = small.losses(spec, tokens, folder / f"{kind}-halved", device, kind, micro_batch=target)
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)
        size = run.ledger.physical_batch_size
        assert 1 <= size < target, f"{kind}: a micro-batch of {size} fitted into {1.5 * peak / 2**20:.0f} MiB"
        difference = within(float(np.abs(np.subtract(found, expected)).max()), 1e-4, f"losses of {kind}")
        facts[kind] = {"micro-batch": size, "largest difference of a loss": difference}
    return facts


def a_job_that_shares_a_gpu_keeps_to_its_share(device: torch.device, _: Path) -> Facts:
    """``runs_per_gpu: 2``: half of the card's memory is too much for one job."""
    os.environ[SHARED] = "2"
    total = torch.cuda.get_device_properties(device).total_memory
    try:
        assert devices.pick_device("cuda").type == "cuda"
        torch.empty(total // 2, dtype=torch.uint8, device=device)
    except torch.OutOfMemoryError:
        return {"GiB": round(total / 2**30, 1)}
    finally:
        del os.environ[SHARED]
        torch.cuda.set_per_process_memory_fraction(1.0)
    raise AssertionError("half of the memory was given")


def tokens_that_do_not_fit_are_streamed(device: torch.device, _: Path) -> Facts:
    """From page-locked memory of the host, and they are the same."""
    tokens = small.reviews(20_000, width=128)
    on_device = DeviceTokens(tokens, device)
    size = sum(column.element_size() * column.numel() for column in on_device.columns)
    filler, wanted = None, torch.cuda.mem_get_info(device)[0] - 5 * size
    while filler is None:
        try:
            filler = torch.empty(wanted, dtype=torch.uint8, device=device)
        except torch.OutOfMemoryError:
            wanted -= 2**24
    streamed = DeviceTokens(tokens, device)
    del filler
    torch.cuda.empty_cache()
    assert on_device.home.type == "cuda"
    assert streamed.home.type == "cpu", "the device still had room"
    rows = np.random.default_rng(0).permutation(len(tokens))[:6]
    found, expected = (data.micro_batch(data.order(rows), 1.0) for data in (streamed, on_device))
    assert all(map(torch.equal, found[:3], expected[:3]))
    return {}


# ------------------------------------------------------------------------------------------------ training


def an_interrupted_run_ends_with_the_same_bytes(device: torch.device, folder: Path) -> Facts:
    """``determinism: strict``: stopped by a signal at its seventh update and resumed, against one without a stop."""
    tokens, names = small.tokens_folder(folder / "tokens"), ("history.jsonl", "last.safetensors", "best.safetensors")
    settings = TrainSettings(physical_batch_size=small.MICRO_BATCH, device=device.type)
    for architecture in small.ENCODERS:
        spec = small.spec_of(architecture, 0.1, precision="bfloat16", determinism="strict")

        def train_in(name: str, stop_at: int | None = None, spec=spec, architecture=architecture) -> list[str]:
            def observe(line: HistoryLine) -> None:
                if line["kind"] == "update" and line["update"] == stop_at:
                    os.kill(os.getpid(), signal.SIGTERM)

            place = folder / architecture / name
            train(spec, "check", settings, tokens, place / "run", place / "state", observe)
            run = place / "run"
            return [file_hash(run / ("" if name.endswith("jsonl") else "checkpoints") / name) for name in names]

        whole = train_in("whole")
        try:
            train_in("cut", stop_at=7)
        except Stopped as stopped:
            assert "received SIGTERM" in str(stopped)
        else:
            raise AssertionError(f"{architecture}: the signal did not stop the training")
        resumed = train_in("cut")
        different = [name for name, a, b in zip(names, whole, resumed, strict=True) if a != b]
        assert not different, f"{architecture}: {', '.join(different)} of the resumed run differ"
    return {}


def the_guard_keeps_the_weights(device: torch.device, _: Path) -> Facts:
    """A loss that is not finite leaves weights and later updates alone, without the host's knowledge."""
    model = small.model_of("bert", device)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2, fused=True)
    guard, batches = Guard(optimizer, device), micro_batches(small.data_on(device), 1)
    before: list[Tensor] = []
    for update, factor in enumerate((1.0, float("nan"), 1.0)):
        if update == 1:
            before = [parameter.detach().clone() for parameter in model.parameters()]
        sums = micro_step(model, batches[0]._replace(scale=factor), autocast(device, torch.float32))
        guard.watch(sums.loss * factor, torch.ones((), device=device))
        optimizer.step()
        optimizer.zero_grad()
    assert all(map(torch.equal, before, model.parameters())), "weights moved after a loss that is not finite"
    return {}


def attention_is_that_of_the_cpu(device: torch.device, _: Path) -> Facts:
    """Maps and probabilities of one review."""
    facts, tokens = {}, small.reviews()
    row = int(tokens.length.argmax())
    ids = torch.from_numpy(tokens.input_ids[row, : tokens.length[row]].astype(np.int64))
    for architecture in small.ENCODERS:
        (maps, shares), (expected, probabilities) = (
            attention_maps(small.model_of(architecture, place).eval(), ids.to(place))
            for place in (device, torch.device("cpu"))
        )
        within(float(np.abs(shares - probabilities).max()), 1e-4, f"{architecture}, probabilities")
        facts[architecture] = within(float(np.abs(maps - expected).max()), 1e-4, f"{architecture}, maps")
    return facts


# ------------------------------------------------------------------------------------------------ the machine


def a_lease_shows_one_device(_: torch.device, folder: Path) -> Facts:
    """The device of a lease is the only one that torch sees; a second job on a machine with one finds it taken."""
    for name in (VISIBLE, LEASED):
        os.environ.pop(name, None)
    with leased_devices("cuda", folder=folder, patience=0) as leased:
        assert len(leased) == 1, f"{leased}: SLURM or a parent process assigned the device"
        assert torch.cuda.device_count() == 1
        uuid = str(torch.cuda.get_device_properties(0).uuid)
        assert leased[0].removeprefix("GPU-") == uuid or leased[0].isdecimal(), f"leased {leased[0]}, torch has {uuid}"
        del os.environ[LEASED]
        del os.environ[VISIBLE]
        try:
            with leased_devices("cuda", folder=folder, patience=0) as second:
                assert set(second).isdisjoint(leased), f"{second} was leased twice"
        except UserError as error:
            assert str(os.getpid()) in str(error), error
    return {"device": leased[0]}


def telemetry_measures_the_card(device: torch.device, _: Path) -> Facts:
    """Utilisation and energy while the card works for three seconds."""
    matrix = torch.randn(4096, 4096, device=device)
    with Telemetry(device, 1, None) as telemetry:
        until = time.monotonic() + 3
        while time.monotonic() < until:
            matrix = torch.nn.functional.normalize(matrix @ matrix)
            torch.cuda.synchronize()
        card = telemetry.cards[0]
    facts = telemetry.facts()
    import pynvml

    seen, uuid = pynvml.nvmlDeviceGetUUID(card.handle), torch.cuda.get_device_properties(device).uuid
    assert seen.removeprefix("GPU-") == str(uuid), f"measured {seen}, torch computes on {uuid}"
    used, joules = facts["gpu_utilisation_mean"], facts["energy_joules"]
    assert used is not None and 0.3 < used <= 1, f"utilisation {used}"
    assert joules is not None and 3 * 20 < joules < 3 * 2000, f"{joules} J in three seconds"
    return dict(facts)


def two_ranks_have_the_gradient_of_one(device: torch.device, folder: Path) -> Facts:
    """Two processes share a window's micro-batches, one of which is left over."""
    arguments = (device.type, free_port(), folder)
    torch.multiprocessing.spawn(_rank, arguments, nprocs=2)
    first, second = (torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in (0, 1))
    assert torch.equal(first, second), "the ranks go on with different gradients"
    expected = gradient(small.model_of("bert", device), micro_batches(small.data_on(device)))
    return {"difference": within(compare(first, expected)["relative_l2"], 1e-5, "two ranks against one")}


def free_port() -> int:
    """A port on which nobody listens."""
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _rank(rank: int, kind: str, port: int, folder: Path) -> None:
    values = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ |= {name: str(value) for name, value in values.items()}
    ranks = Ranks(torch.device(kind))
    device = torch.device(kind, rank) if kind == "cuda" else torch.device(kind)
    model = small.model_of("bert", device)
    for batch in ranks.share(micro_batches(small.data_on(device))):
        micro_step(model, batch, autocast(device, torch.float32))
    ranks.sum_gradients(model)
    torch.save(flat_gradient(model), folder / f"rank{rank}.pt")
    ranks.close()


CHECKS = (
    Check("cpu", "the device has the gradient of the CPU", the_device_has_the_gradient_of_the_cpu, "any device"),
    Check("graph", "a CUDA graph has the eager gradient", a_graph_has_the_eager_gradient),
    Check("no-wait", "no micro-step waits for the device", no_micro_step_waits_for_the_device),
    Check(
        "resume", "under `strict` an interrupted run ends with the same bytes",
        an_interrupted_run_ends_with_the_same_bytes, "any device",
    ),
    Check("no-wait-update", "no update waits for the device", no_update_waits_for_the_device),
    Check("out-of-memory", "out of memory halves the micro-batch", out_of_memory_halves_the_micro_batch),
    Check(
        "certificate", "our engines have the gradient of the full batch",
        our_engines_have_the_gradient_of_the_full_batch, "any device",
    ),
    Check(
        "bfloat16", "bfloat16 has the gradient of float32", bfloat16_has_the_gradient_of_float32, "any device"
    ),
    Check("graph-training", "a CUDA graph trains like eager steps", a_graph_trains_like_eager),
    Check("graph-dropout", "a CUDA graph draws its dropout from the seed", a_graph_draws_dropout_from_the_seed),
    Check("bfloat16-training", "bfloat16 trains like float32", bfloat16_trains_like_float32, "any device"),
    Check("attention", "attention is that of the CPU", attention_is_that_of_the_cpu, "any device"),
    Check("predictions", "predictions wait for the device once", predictions_wait_for_the_device_once),
    Check("guard", "a loss that is not finite moves no weight", the_guard_keeps_the_weights, "any device"),
    Check("lease", "a lease shows one device", a_lease_shows_one_device),
    Check("streamed", "tokens that do not fit are streamed", tokens_that_do_not_fit_are_streamed),
    Check("share", "a job that shares a GPU keeps to its share", a_job_that_shares_a_gpu_keeps_to_its_share),
    Check("telemetry", "telemetry measures the card", telemetry_measures_the_card),
    Check(
        "two-ranks", "two ranks have the gradient of one", two_ranks_have_the_gradient_of_one, "two CUDA devices"
    ),
)  # fmt: skip
"""In the order in which they run: what a training depends on most comes first."""
