"""The certificate: our engines pass, the peers are measured, and a broken engine is found out."""

from importlib.metadata import version

import pytest
import torch
from encoders import tiny_encoder

from batchscope.certificate import engines, peers
from batchscope.certificate.certify import ACCUMULATION_STEPS, TAIL_STEPS, certified_windows, certify
from batchscope.certificate.spec import CertificateSpec
from batchscope.certificate.verdict import TOLERANCES, certificate_rows, terminal_table
from batchscope.config.study import Study
from batchscope.data.corpus import build_corpus
from batchscope.data.split import make_split
from batchscope.data.tokenize import tokenize
from batchscope.data.tokens import load_tokens
from batchscope.errors import UserError
from batchscope.files import read_json
from batchscope.model import cpu_kernels
from batchscope.model.classifier import TextClassifier
from batchscope.model.spec import ModelSpec
from batchscope.training.windows import loss_scale

N = ACCUMULATION_STEPS
PRECISIONS = ["float64", "float32", "bfloat16"]


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def certificate_spec(small_study, architecture, precision="bfloat16"):
    return CertificateSpec(model=small_study.spec(architecture).model, seed=1, precision=precision, device="cpu")


@pytest.fixture(scope="module")
def certificates(small_study, tmp_path_factory):
    """Architecture → certificate of the tiny encoder, read back from its file."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("certificates")
    for name in ("bert", "modernbert"):
        certify(certificate_spec(small_study, name), small_study.tokens(name), folder / f"{name}.json")
    return {name: read_json(folder / f"{name}.json") for name in ("bert", "modernbert")}


@pytest.fixture(scope="module")
def minilm_certificate(minilm, tmp_path_factory):
    """Of the pretrained MiniLM, on a few synthetic reviews."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("minilm")
    study = Study.from_mapping(
        {
            "study": "minilm",
            "data": {"source": "synthetic", "synthetic": {"reviews": 80}, "max_length": 8},
            "models": {"minilm": {"checkpoint": str(minilm)}},
            "target_batch_sizes": [16],
            "lr_policies": {"constant": {"base_lr": 1e-4}},
            "device": "cpu",
            "precision": "float32",  # bfloat16 takes forty seconds on a CPU without its instructions
        }
    )
    build_corpus(study.corpus_spec(), folder / "corpus.parquet")
    make_split(study.split_spec(), folder / "corpus.parquet", folder / "split.parquet")
    tokenize(study.tokens_spec("minilm"), folder / "corpus.parquet", folder / "split.parquet", folder / "tokens")
    return certify(study.certificate_spec("minilm"), folder / "tokens", folder / "minilm.json")


@pytest.fixture(params=["bert", "modernbert", "minilm"])
def made(request):
    """Each of the three certificates."""
    if request.param == "minilm":
        return request.getfixturevalue("minilm_certificate")
    return request.getfixturevalue("certificates")[request.param]


def precisions_of(made):
    """Those of the mathematics, and the study's own."""
    return PRECISIONS if made["precision"] == "bfloat16" else PRECISIONS[:2]


def peer(certificate, distribution):
    (row,) = [row for row in certificate["peers"] if row["distribution"] == distribution]
    assert "reason" not in row, row["reason"]
    return row["windows"]


def test_a_certificate_depends_on_the_model_and_not_on_the_grid():
    config = {
        "study": "any",
        "data": {"source": "synthetic"},
        "models": {"bert": {"architecture": "bert"}, "modernbert": {"architecture": "modernbert"}},
        "target_batch_sizes": [16],
        "lr_policies": {"constant": {"base_lr": 1e-3}},
        "seeds": [1],
    }
    grid = {"target_batch_sizes": [8], "physical_batch_size": 2, "seeds": [1, 2]}
    base = Study.from_mapping(config).certificate_spec("bert")
    assert Study.from_mapping(config | grid).certificate_spec("bert") == base
    assert Study.from_mapping(config | {"precision": "bfloat16"}).certificate_spec("bert") != base
    assert Study.from_mapping(config).certificate_spec("modernbert") != base


def test_the_windows_are_a_full_one_a_tail_and_a_ragged_one():
    sizes = {name: window.examples for name, window in certified_windows(8).items()}
    assert sizes == {"full": 32, "tail": 24, "ragged": 28}
    assert certified_windows(8)["tail"].start == 32
    assert {name: window.examples for name, window in certified_windows(2).items()}["ragged"] == 7


def test_both_engines_pass_in_every_precision_and_agree_bit_for_bit(made):
    assert made["passed"], made["verdict"]
    assert [(row["precision"], row["engine"]) for row in made["engines"]] == [
        (precision, engine) for precision in precisions_of(made) for engine in ("manual", "accelerate")
    ]
    for row in made["engines"]:
        assert row["passed"]
        for window in row["windows"].values():
            assert window["largest_difference"] <= TOLERANCES[row["precision"]]
            assert window["norm_ratio"] == pytest.approx(1, abs=TOLERANCES[row["precision"]])
            assert window["logged_loss"] == pytest.approx(window["true_loss"], rel=TOLERANCES[row["precision"]])
            assert window.get("bitwise_equal", True)


def test_float64_is_exact_to_its_last_digits(made):
    assert max(w["largest_difference"] for w in made["engines"][0]["windows"].values()) < 1e-13


def test_hugging_face_trainer_is_as_many_times_too_large_as_there_are_micro_batches(made):
    windows = peer(made, "transformers")
    assert windows["full"]["norm_ratio"] == pytest.approx(N, rel=1e-3)
    assert windows["tail"]["norm_ratio"] == pytest.approx(TAIL_STEPS, rel=1e-3)
    assert windows["full"]["cosine"] == pytest.approx(1, abs=1e-9)
    assert windows["full"]["logged_loss"] == pytest.approx(N * windows["full"]["true_loss"], rel=1e-3)
    assert windows["tail"]["logged_loss"] == pytest.approx(TAIL_STEPS * windows["tail"]["true_loss"], rel=1e-3)


def test_accelerate_s_documented_loop_makes_the_tail_too_small(made):
    windows = peer(made, "accelerate")
    assert windows["full"]["largest_difference"] < 1e-10
    assert windows["tail"]["norm_ratio"] == pytest.approx(TAIL_STEPS / N, rel=1e-3)
    assert windows["ragged"]["largest_difference"] > 1e-3
    assert windows["full"]["logged_loss"] is None


def test_lightning_does_as_accelerate_does(certificates):
    pytest.importorskip("lightning")
    for made in certificates.values():
        windows = peer(made, "lightning")
        assert windows["full"]["largest_difference"] < 1e-10
        assert windows["tail"]["norm_ratio"] == pytest.approx(TAIL_STEPS / N, rel=1e-3)


def test_the_table_has_a_row_per_precision_and_peer(made):
    rows = certificate_rows(made)
    ours = [row[0] for row in rows if row[0].startswith("Batchscope")]
    assert ours == [f"Batchscope, {precision}" for precision in precisions_of(made)]
    assert all(row[1:4] == ["1.0000"] * 3 and row[-1] == "exact, both engines bit for bit" for row in rows[:2])
    trainer = next(row for row in rows if row[0].startswith("Hugging Face Trainer"))
    assert trainer[1:3] == ["4.0000", "3.0000"]
    assert trainer[-1].startswith("full window 4.00×, tail window 3.00×")
    assert made["verdict"] in terminal_table(made)


def naive(window, examples, target_batch_size, tail, naive_physical_batch_size=None):
    return loss_scale(window, examples, target_batch_size, "naive", naive_physical_batch_size)


def test_a_broken_engine_is_found_out(small_study, tmp_path, monkeypatch):
    monkeypatch.setattr(engines, "loss_scale", naive)
    monkeypatch.setattr(peers, "PEERS", {})
    output = tmp_path / "bert.json"
    made = certify(certificate_spec(small_study, "bert", "float32"), small_study.tokens("bert"), output)
    assert made["verdict"].startswith("NOT certified: manual engine in float64: WRONG: tail window 0.75×")
    written = read_json(output)
    assert not written["passed"]
    assert not any(row["passed"] for row in written["engines"])
    assert "WRONG" in terminal_table(written)


def test_an_engine_that_differs_in_the_last_bit_is_not_called_equal(small_study, tmp_path, monkeypatch):
    class Rounded(engines.ENGINES["manual"]):
        def accumulate(self, micro_batches, autocast):
            sums = super().accumulate(micro_batches, autocast)
            self.model.head.bias.grad *= 1 + 1e-12
            return sums

    monkeypatch.setitem(engines.ENGINES, "accelerate", Rounded)
    monkeypatch.setattr(peers, "PEERS", {})
    spec = certificate_spec(small_study, "bert", "float32")
    made = certify(spec, small_study.tokens("bert"), tmp_path / "bert.json")
    assert not made["passed"]
    assert [row["passed"] for row in made["engines"]] == [True, False, True, True]
    assert "not bit for bit" in made["verdict"]


def test_a_peer_that_fails_or_is_missing_says_so_and_fails_nothing_else(small_study, tmp_path, monkeypatch):
    def broken(*_):
        raise RuntimeError("no such thing\nsecond line")

    def idle(*_):
        pass

    monkeypatch.setattr(
        peers, "PEERS", {"Broken": ("torch", broken), "Idle": ("torch", idle), "Absent": ("no-such-distribution", idle)}
    )
    spec = certificate_spec(small_study, "bert", "float32")
    made = certify(spec, small_study.tokens("bert"), tmp_path / "bert.json")
    assert made["passed"]
    assert [row["reason"] for row in made["peers"]] == [
        "could not be measured: RuntimeError: no such thing",
        "could not be measured: RuntimeError: 0 updates, 2 expected",
        "not installed",
    ]
    assert all("windows" not in row for row in made["peers"])
    assert [row[1] for row in certificate_rows(made)[2:]] == ["–"] * 3


# ------------------------------------------------------------------------------- encoders and devices of all kinds


@pytest.fixture
def certified(small_study, tmp_path, monkeypatch):
    """Certify a tiny encoder of an architecture, loaded from a checkpoint; peers only where they are asked for."""

    def certify_one(kind, precision="float32", with_peers=False, **changes):
        if not with_peers:
            monkeypatch.setattr(peers, "PEERS", {})
        tiny_encoder(kind, vocab_size=300, **changes).save_pretrained(tmp_path / kind)
        spec = CertificateSpec(
            model=ModelSpec(checkpoint=str(tmp_path / kind)), seed=1, precision=precision, device="cpu"
        )
        certify(spec, small_study.tokens("bert"), tmp_path / "out" / f"{kind}.json")
        return read_json(tmp_path / "out" / f"{kind}.json")

    return certify_one


def test_the_kernels_of_a_cpu_s_training_are_certified(certified, monkeypatch):
    def rounded(*arguments, **keywords):
        output, weights = cpu_kernels.sdpa_attention_forward(*arguments, **keywords)
        return 2 * output, weights

    monkeypatch.setattr(cpu_kernels, "cpu_attention", rounded)
    made = certified("bert")
    assert not made["passed"]
    assert not any(row["passed"] for row in made["engines"])


def test_the_full_batch_is_computed_without_the_kernels(small_study):
    model = TextClassifier(tiny_encoder("bert", vocab_size=300), 2).eval()
    bench = engines.Bench(
        model, load_tokens(small_study.tokens("bert") / "train.arrow"), "float32", torch.device("cpu")
    )
    bench.use_training_kernels()
    assert model.config._attn_implementation == cpu_kernels.ATTENTION
    bench.full_batch(bench.order[:8])
    assert model.config._attn_implementation == "sdpa"
    again = engines.Bench(
        model, load_tokens(small_study.tokens("bert") / "train.arrow"), "float64", torch.device("cpu")
    )
    assert again.plain == "sdpa"


def test_device_and_libraries_are_part_of_the_certificate(certified):
    made = certified("bert")
    assert made["device_kind"] == "cpu"
    assert made["versions"] == {name: version(name) for name in ("torch", "transformers", "accelerate")}
    assert made["loading"]["loaded"] > 30
    assert made["attention"] is None


def test_an_encoder_with_norms_in_float32_is_certified_by_its_own_floor(certified):
    made = certified("eurobert")
    assert made["passed"], made["verdict"]
    assert TOLERANCES["float64"] < made["tolerances"]["float64"] <= TOLERANCES["float32"]
    assert certified("bert")["tolerances"]["float64"] == TOLERANCES["float64"]


def test_a_wrong_scale_fails_an_encoder_with_norms_in_float32_too(certified, monkeypatch):
    monkeypatch.setattr(engines, "loss_scale", naive)
    assert "tail window 0.75×" in certified("eurobert")["verdict"]


def test_the_tolerance_follows_the_floor_between_those_of_float64_and_float32():
    assert engines.float64_tolerance(0.0) == engines.float64_tolerance(1e-16) == TOLERANCES["float64"]
    assert engines.float64_tolerance(1e-7) == pytest.approx(1e-5)
    assert engines.float64_tolerance(1e-2) == TOLERANCES["float32"]


def test_an_encoder_without_float64_is_certified_without_it(certified):
    made = certified("mra", with_peers=True)
    assert made["passed"], made["verdict"]
    assert "Not measured in float64: the mra encoder cannot compute in float64 (" in made["verdict"]
    assert {row["precision"] for row in made["engines"]} == {"float32"}
    assert all("could not be measured" in row["reason"] or row["reason"] == "not installed" for row in made["peers"])
    assert [row[0] for row in certificate_rows(made)][:2] == ["Batchscope, float32", "Batchscope, float64"]
    assert made["attention"].startswith("no attention maps: the mra encoder")


def test_an_encoder_that_cannot_compute_in_the_study_s_precision_is_refused(certified):
    with pytest.raises(
        UserError, match=r"the deberta encoder cannot compute in bfloat16: .*; set `precision: float32`"
    ):
        certified("deberta", precision="bfloat16")


def test_a_bool_with_dropout_in_its_name_does_not_block_the_peers(certified):
    made = certified("esm", with_peers=True)
    assert made["passed"], made["verdict"]
    assert peer(made, "accelerate")["tail"]["norm_ratio"] == pytest.approx(TAIL_STEPS / N, rel=1e-3)
    assert peer(made, "transformers")["full"]["norm_ratio"] == pytest.approx(1)  # its loss is divided as it should be


def test_an_encoder_without_a_sequence_classifier_leaves_the_peers_out(certified):
    made = certified("splinter", with_peers=True)
    assert made["passed"], made["verdict"]
    assert all("no sequence classifier with a" in row["reason"] for row in made["peers"])


def test_a_peer_that_ends_the_process_fails_nothing(certified, monkeypatch):
    def leaves(*_):
        raise SystemExit(3)

    monkeypatch.setattr(peers, "PEERS", {"Leaves": ("torch", leaves)})
    made = certified("bert", with_peers=True)
    assert made["passed"]
    assert made["peers"][0]["reason"] == "could not be measured: SystemExit: 3"


def test_a_model_that_cannot_be_trained_is_refused_first(certified):
    with pytest.raises(UserError, match=r"data\.max_length: 32"):
        certified("bert", max_position_embeddings=16)
