"""The command line's frame: help that costs nothing, one line for what the user did wrong, exit codes."""

import importlib
import os
import resource
import signal
import subprocess
import sys
import time
import types
import warnings

import pytest

import cryorecon
from cryorecon.cli.main import COMMANDS, GROUPS, main, overview
from cryorecon.errors import InputError

HEAVY = ("torch", "numpy", "pandas", "scipy", "matplotlib", "sklearn", "skimage", "healpy", "gemmi", "starfile")


def python(*args, **keywords):
    """Run this Python with ``args`` and return the finished process."""
    return subprocess.run([sys.executable, *args], capture_output=True, text=True, timeout=60, check=False, **keywords)


@pytest.fixture
def stub(monkeypatch):
    """Puts a function in the place of ``cryorecon inspect`` and returns a way to call it."""

    def install(action, add_args=lambda parser: None):
        module = types.ModuleType("cryorecon.cli.inspect", "say what a file is\n\nExample: cryorecon inspect x.star")
        module.add_args, module.main = add_args, action
        monkeypatch.setitem(sys.modules, "cryorecon.cli.inspect", module)

    return install


def raises(error):
    def action(args):
        raise error

    return action


def test_help_takes_less_than_a_third_of_a_second_of_cpu():
    seconds = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert python("-m", "cryorecon", "--help").returncode == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(seconds) < 0.3, seconds


def test_help_lists_every_command_once_under_its_purpose(capsys):
    assert main(["--help"]) == 0
    printed = capsys.readouterr().out
    assert printed.strip() == overview()
    assert len(set(COMMANDS)) == len(COMMANDS)
    for group, commands in GROUPS.items():
        assert f"\n{group}:\n" in printed
        for name, text in commands.items():
            assert sum(line.split()[:1] == [name] and line.endswith(text) for line in printed.splitlines()) == 1


def test_overview_fits_a_screen():
    assert len(overview().splitlines()) <= 48
    assert max(map(len, overview().splitlines())) <= 80


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_is_a_module_with_help_that_imports_nothing_heavy(name):
    code = (
        "import sys\nfrom cryorecon.cli.main import main\n"
        f"try: main([{name!r}, '--help'])\nexcept SystemExit as end: assert not end.code\n"
        f"print('heavy:', *sorted(set({HEAVY!r}) & set(sys.modules)))"
    )
    done = python("-c", code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: cryorecon {name}")
    assert done.stdout.splitlines()[-1] == "heavy:"
    module = importlib.import_module(f"cryorecon.cli.{name}")
    assert " ".join(module.__doc__.split()) in " ".join(done.stdout.split()), "the module's docstring is the help text"
    assert f"cryorecon {name}" in module.__doc__, "help shows an example"


def test_every_module_of_the_folder_is_in_the_table():
    from pathlib import Path

    files = {path.stem for path in (Path(cryorecon.__file__).parent / "cli").glob("[a-z]*.py")} - {"main"}
    shared = {name for name in files if not hasattr(importlib.import_module(f"cryorecon.cli.{name}"), "main")}
    assert files - shared <= set(COMMANDS)


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"cryorecon {cryorecon.__version__}\n"


def test_python_dash_m_is_the_command():
    done = python("-m", "cryorecon", "--version")
    assert (done.returncode, done.stdout) == (0, f"cryorecon {cryorecon.__version__}\n")


def test_no_command_shows_the_overview_and_fails(capsys):
    assert main([]) == 2
    captured = capsys.readouterr()
    assert (captured.out, captured.err.strip()) == ("", overview())


@pytest.mark.parametrize(("typed", "meant"), [
    ("train_vea", "train_vae"), ("train-vae", "train_vae"), ("Analyse", "analyze"),
])
def test_unknown_command_names_the_nearest(typed, meant, capsys):
    assert main([typed]) == 2
    assert capsys.readouterr().err == f"cryorecon: error: expected a command, found {typed!r}; did you mean {meant}?\n"


def test_unknown_command_far_from_all(capsys):
    assert main(["xyzzy"]) == 2
    assert capsys.readouterr().err.endswith("`cryorecon --help` lists them\n")


def test_success(stub, capsys):
    stub(lambda args: print("fine"))
    assert main(["inspect"]) == 0
    assert capsys.readouterr() == ("fine\n", "")


def test_bad_input_is_one_line_and_code_2(stub, capsys):
    stub(raises(InputError("x.mrcs: expected 3 images,\n found 2; copy it again")))
    assert main(["inspect"]) == 2
    assert capsys.readouterr() == ("", "cryorecon: error: x.mrcs: expected 3 images, found 2; copy it again\n")


def test_bad_arguments_are_one_line_and_code_2(stub, capsys):
    stub(raises(AssertionError), lambda parser: parser.add_argument("-n", type=int))
    assert main(["inspect", "-n", "many"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("cryorecon: error: argument -n: invalid int value: 'many'")
    assert error.endswith("see `cryorecon inspect --help`\n")
    assert error.count("\n") == 1


def test_an_empty_argument_is_refused(stub, capsys):
    stub(raises(AssertionError), lambda parser: parser.add_argument("-o", "--outdir"))
    assert main(["inspect", "-o", ""]) == 2
    assert "found an empty one; is a variable of the shell not set?" in capsys.readouterr().err


def test_options_are_not_guessed_from_their_first_letters(stub, capsys):
    stub(raises(AssertionError), lambda parser: parser.add_argument("--uninvert-data", action="store_true"))
    assert main(["inspect", "--uninvert"]) == 2
    assert "unrecognized arguments: --uninvert" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["-1e-3", "-1E+2", "-.5e1", "-1.e0", "-0.25", "-7"])
def test_negative_numbers_are_numbers_in_every_notation(text, stub, capsys):
    def add_args(parser):
        parser.add_argument("-z", type=float, nargs="+")
        parser.add_argument("-e", action="store_true")

    stub(lambda args: print(args.z, args.e), add_args)
    assert main(["inspect", "-z", "0.5", text, "-e"]) == 0
    assert capsys.readouterr().out == f"{[0.5, float(text)]} True\n"


def test_eval_vol_takes_a_small_negative_coordinate(tmp_path, capsys):
    assert main(["eval_vol", str(tmp_path / "none"), "-z", "-1e-3", "0", "-o", str(tmp_path / "maps")]) == 2
    error = capsys.readouterr().err
    assert str(tmp_path / "none") in error, "the run is missing, not the coordinate"
    assert "-z" not in error


def test_interrupt_is_code_130_and_passes_on_how_to_resume(stub, capsys):
    stub(raises(KeyboardInterrupt("continue with `cryorecon train_vae ... --resume`")))
    assert main(["inspect"]) == 130
    assert capsys.readouterr().err == "\ncryorecon: interrupted: continue with `cryorecon train_vae ... --resume`\n"
    stub(raises(KeyboardInterrupt()))
    assert main(["inspect"]) == 130
    assert capsys.readouterr().err == "\ncryorecon: interrupted\n"


CHILD = """
import sys, types
module = types.ModuleType("cryorecon.cli.inspect", "stub")
module.add_args = lambda parser: None
def action(args):
    {body}
module.main = action
sys.modules["cryorecon.cli.inspect"] = module
from cryorecon.cli.main import main
sys.exit(main(["inspect"]))
"""


def test_ctrl_c_reaches_a_running_command():
    heard = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"  # whatever started the tests ignores it
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD.format(body=f"{heard}; print('on', flush=True); import time; time.sleep(60)")],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )
    with child:
        assert child.stdout.readline() == "on\n"
        time.sleep(0.1)
        child.send_signal(signal.SIGINT)
        _, error = child.communicate(timeout=30)
    assert (child.returncode, error) == (130, "\ncryorecon: interrupted\n")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full on this system")
@pytest.mark.parametrize("write", ["open('/dev/full', 'wb', buffering=0).write(b'x')",
                                   "import numpy; numpy.save(open('/dev/full', 'wb', buffering=0), numpy.zeros(9))",
                                   "import numpy; numpy.zeros(9999).tofile('/dev/full')"])
def test_full_disk_is_one_line_and_code_2(write):
    done = python("-W", "ignore", "-c", CHILD.format(body=write))
    assert done.returncode == 2
    assert done.stderr.startswith("cryorecon: error: ")
    assert "no space left on the device" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("action", [lambda args: open(args.path), lambda args: open(args.path, "w")])  # noqa: SIM115
def test_a_path_that_cannot_be_opened_is_one_line_and_code_2(action, stub, capsys, tmp_path):
    path = str(tmp_path / "absent" / "file")
    stub(action, lambda parser: parser.add_argument("path"))
    assert main(["inspect", path]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"cryorecon: error: {path}: ")
    assert error.count("\n") == 1


def test_reader_that_leaves_gets_silence_and_code_141():
    body = "\n    ".join(["for i in range(200000):", "    print(i)"])
    with subprocess.Popen([sys.executable, "-c", CHILD.format(body=body)], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True) as child:
        child.stdout.readline()
        child.stdout.close()
        error = child.stderr.read()
    assert (child.returncode, error) == (141, "")


@pytest.mark.parametrize(("closed", "code"), [(">&-", 0), ("2>&-", 0), ("<&- >&- 2>&-", 0)])
def test_closed_streams_are_nowhere_and_no_file_takes_their_place(tmp_path, closed, code):
    made = tmp_path / "made"
    call = f"{sys.executable} -m cryorecon simulate -n 3 -D 36 --apix 6 --motion rigid --snr 0 -o {made} {closed}"
    done = subprocess.run(["sh", "-c", call], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr.replace("\r", "")) == (code, "")
    assert (made / "particles.mrcs").stat().st_size == 1024 + 3 * 36 * 36 * 4
    assert sorted(path.name for path in made.iterdir())[-1] == "truth.npz"


def test_a_terminal_without_the_letters_gets_escapes():
    body = "print('1 Å ± 2 µm')"
    done = python("-c", CHILD.format(body=body), env=os.environ | {"PYTHONIOENCODING": "ascii"})
    assert (done.returncode, done.stdout, done.stderr) == (0, "1 \\xc5 \\xb1 2 \\xb5m\n", "")


@pytest.mark.parametrize("stream", ["2>/dev/full", "2>&-"])
def test_an_error_that_nobody_hears_keeps_its_exit_code(stream):
    call = f"{sys.executable} -m cryorecon inspect nothing {stream}"
    done = subprocess.run(["sh", "-c", call], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "")


@pytest.mark.parametrize("error", [ValueError("a defect"), OSError("a defect without a path")])
def test_a_defect_keeps_its_traceback(error, stub):
    stub(raises(error))
    with pytest.raises(type(error), match="a defect"):
        main(["inspect"])


def test_a_warning_is_one_line_without_its_source():
    done = python("-c", CHILD.format(body="import warnings; warnings.warn('no pixel size; 1 A/px is assumed')"))
    assert (done.returncode, done.stderr) == (0, "cryorecon: warning: no pixel size; 1 A/px is assumed\n")


def test_the_format_of_warnings_is_put_back(stub):
    before = warnings.formatwarning
    stub(raises(InputError("x")))
    main(["inspect"])
    assert warnings.formatwarning is before
