"""``cryorecon serve``: it says where it is, ends on Ctrl-C, and tells what is missing."""

import http.client
import json
import threading
from urllib.parse import urlsplit

import pytest

from cryorecon.cli.main import main
from cryorecon.report.server import ReportServer

TINY = ["--dec-dim", "16", "--dec-layers", "1", "--device", "cpu", "--pe-dim", "4"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("serve")
    simulated = ["-n", "40", "-D", "32", "--apix", "8", "--states", "4", "--snr", "10", "-o", str(folder / "data")]
    assert main(["simulate", *simulated]) == 0
    star = str(folder / "data" / "particles.star")
    assert main(["train_vae", star, "--zdim", "2", "-n", "0", "-o", str(folder / "run"), *TINY]) == 0
    return folder / "run"


def test_without_a_report_it_says_what_to_do(run, capsys):
    assert main(["serve", str(run), "--device", "cpu"]) == 2
    assert "run `cryorecon analyze` on this epoch first" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore:no way by near neighbours")  # so few particles
def test_it_serves_until_interrupted(run, capsys, monkeypatch):
    assert main(["analyze", str(run), "--ksample", "1", "--skip-vol"]) == 0
    forever, told = ReportServer.serve_forever, {}

    def one_visit(server):
        thread = threading.Thread(target=forever, args=(server, 0.01))
        thread.start()
        parts = urlsplit(server.address)
        try:
            for name in ("volume?z=0,0", "images?particle=39", "summary.json"):
                connection = http.client.HTTPConnection(parts.netloc, timeout=30)
                connection.request("GET", parts.path + name)
                told[name] = json.loads(connection.getresponse().read())
                connection.close()
        finally:
            server.shutdown()
            thread.join()
        raise KeyboardInterrupt

    monkeypatch.setattr(ReportServer, "serve_forever", one_visit)
    capsys.readouterr()
    moved = run.parent / "moved"
    moved.mkdir()
    (run.parent / "data" / "particles.mrcs").rename(moved / "particles.mrcs")
    assert main(["serve", str(run), "--device", "cpu", "--datadir", str(moved)]) == 0
    assert capsys.readouterr().out.startswith("http://127.0.0.1:")
    assert told["volume?z=0,0"]["box"] == 32
    assert told["images?particle=39"]["count"] == 1
    assert told["summary.json"]["particles"] == 40
    assert capsys.readouterr().err == ""

    stack = run.parent / "data" / "particles.mrcs"
    (moved / "particles.mrcs").rename(stack)
    kept = stack.read_bytes()
    stack.write_bytes(kept[:1024] + kept[1024 + 4096:] + kept[1024:1024 + 4096])  # in another order
    with pytest.warns(UserWarning, match="the images shown are not those of the run"):
        assert main(["serve", str(run), "--device", "cpu"]) == 0
    stack.write_bytes(kept)


@pytest.mark.parametrize(("arguments", "says"), [(["--port", "70000"], "0 to 65535"), (["9"], "9")])
def test_bad_input_is_one_line(run, capsys, arguments, says):
    assert main(["serve", str(run), *arguments]) == 2
    assert says in capsys.readouterr().err
