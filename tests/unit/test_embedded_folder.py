"""The embedded server of a folder, which processes share. Real servers, processes and kill -9."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from taskrunner.embedded.directory import has_user
from taskrunner.embedded.launch import reply_to_ping
from tests.unit.embedded_world import Process, World, client, eventually, is_gone, server_of


@pytest.fixture
def world() -> Iterator[World]:
    with World() as world:
        yield world


def test_processes_that_name_the_same_folder_share_its_server(world: World) -> None:
    first, second = world.start(), world.start()
    address = first.locate(world.url)
    (world.home / "link").symlink_to(world.home / "data")
    assert second.locate(f"embedded://{world.home}/tmp/../link/") == address
    assert world.servers() == [server_of(address)]


def test_two_names_of_a_folder_are_one_server_of_a_process(world: World) -> None:
    user = world.start()
    server = server_of(user.locate(world.url))
    (world.home / "link").symlink_to(world.home / "data")
    user.locate(f"embedded://{world.home}/link")
    user.ask(f"release({world.url!r})")
    eventually(lambda: is_gone(server))


def test_data_in_a_folder_survive_a_full_stop(world: World) -> None:
    first = world.start()
    address = first.locate(world.url)
    server = server_of(address)
    with client(address) as connection:
        connection.set("key", "value")
    first.ask(f"release({world.url!r})")
    eventually(lambda: is_gone(server))
    assert "ready to exit" in (world.inside / "server.log").read_text()  # stopped in order, not by force
    with client(world.start().locate(world.url)) as connection:
        assert connection.get("key") == "value"


@pytest.mark.crash
def test_whoever_finds_the_server_of_a_folder_dead_starts_it_again_with_its_data(world: World) -> None:
    first, second = world.start(), world.start()
    address = first.locate(world.url)
    assert second.locate(world.url) == address
    server = server_of(address)
    with client(address) as connection:
        connection.set("key", "value")
    os.kill(server, signal.SIGKILL)
    assert second.locate(world.url) == address
    with client(address) as connection:
        assert connection.get("key") == "value"
    [(level, message)] = second.ask("records")
    assert level == "WARNING"
    assert "started it again" in message
    assert server_of(address) != server
    eventually(lambda: len(world.parts()) == 3)  # the server, its shell and the watch: none of the dead one's are left


@pytest.mark.crash
def test_a_user_of_a_killed_server_keeps_the_next_one_alive_without_doing_anything(world: World) -> None:
    idle, active = world.start(), world.start()
    address = idle.locate(world.url)
    os.kill(server_of(address), signal.SIGKILL)
    assert active.locate(world.url) == address
    replacement = server_of(address)
    active.kill()
    eventually(lambda: is_gone(active.pid))
    assert has_user(world.inside)
    assert idle.locate(world.url) == address
    assert server_of(address) == replacement


@pytest.mark.crash
def test_ten_processes_that_race_start_exactly_one_server(world: World) -> None:
    binary, starts = world.counting_server()
    racers = [world.start(TASKRUNNER_SERVER_BIN=binary) for _ in range(10)]
    for expected in (1, 2):
        for racer in racers:
            racer.tell(f"locate({world.url!r})")
        [address] = {racer.answer() for racer in racers}
        assert starts() == expected
        os.kill(server_of(address), signal.SIGKILL)


@pytest.mark.crash
def test_the_server_of_a_folder_outlives_its_starter_and_ends_with_its_last_user(world: World) -> None:
    starter, user = world.start(), world.start()
    address = starter.locate(world.url)
    assert user.locate(world.url) == address
    server = server_of(address)
    starter.kill()
    eventually(lambda: is_gone(starter.pid))
    assert has_user(world.inside)
    assert user.locate(world.url) == address
    assert server_of(address) == server
    user.kill()
    eventually(lambda: is_gone(server))
    eventually(lambda: not world.parts())


@pytest.mark.crash
def test_a_forked_child_is_a_user_of_the_folder_only_once_it_asks_for_it(world: World) -> None:
    parent = world.start()
    address = parent.locate(world.url)
    server = server_of(address)
    bystander, user = world.fork(parent), world.fork(parent)
    assert user.locate(world.url) == address
    parent.kill()
    eventually(lambda: is_gone(parent.pid))
    assert has_user(world.inside)
    assert user.locate(world.url) == address
    assert server_of(address) == server
    user.kill()
    eventually(lambda: is_gone(server))
    assert not is_gone(bystander.pid)


def leave_slowly(world: World) -> Process:
    """A user whose watcher, when it takes the name of the pipe away, waits for the files ``before`` and ``after``."""
    real = shutil.which("mv")
    program = f"""
        reach() {{ : >"{world.home}/$1.reached"; while [ ! -e "{world.home}/$1" ]; do sleep 0.01; done; }}
        [ "$1" = users ] && reach before
        "{real}" "$@"
        [ "$1" = users ] && reach after
        [ "$1" = leaving ] && : >"{world.home}/stayed"
    """
    world.script("mv", program)
    return world.start(PATH=f"{world.home}:{os.environ['PATH']}")


@pytest.mark.crash
def test_a_process_that_joins_while_the_watcher_is_about_to_leave_keeps_the_server(world: World) -> None:
    first, second = leave_slowly(world), world.start()
    address = first.locate(world.url)
    server = server_of(address)
    first.kill()
    eventually((world.home / "before.reached").exists)
    assert second.locate(world.url) == address
    (world.home / "before").touch()
    (world.home / "after").touch()
    eventually((world.home / "stayed").exists)
    assert second.locate(world.url) == address
    assert server_of(address) == server


@pytest.mark.crash
def test_a_process_that_comes_when_the_watcher_has_decided_to_leave_starts_a_new_server(world: World) -> None:
    first, second = leave_slowly(world), world.start()
    address = first.locate(world.url)
    server = server_of(address)
    with client(address) as connection:
        connection.set("key", "value")
    (world.home / "before").touch()
    first.kill()
    eventually((world.home / "after.reached").exists)
    second.tell(f"locate({world.url!r})")
    (world.home / "after").touch()
    assert second.answer() == address
    assert server_of(address) != server
    with client(address) as connection:
        assert connection.get("key") == "value"


@pytest.mark.crash
def test_a_starter_that_is_killed_half_way_leaves_nothing_in_the_way(world: World) -> None:
    reached = world.home / "reached"
    slow = world.script("slow-server", f': >"{reached}"; while :; do sleep 0.05; done # in {world.home}')
    starter = world.start(TASKRUNNER_SERVER_BIN=slow)
    starter.tell(f"locate({world.url!r})")
    eventually(reached.exists)
    starter.kill()
    with client(world.start().locate(world.url)) as connection:
        assert connection.ping()


@pytest.mark.crash
def test_an_address_that_a_dead_server_left_behind_is_not_believed(world: World) -> None:
    stranger = world.start().locate("embedded://")
    os.kill(server_of(world.start().locate(world.url)), signal.SIGKILL)
    (world.inside / "address").write_text(stranger.removeprefix("unix://") + "\n")
    address = world.start().locate(world.url)
    assert address != stranger
    assert server_of(address) != server_of(stranger)


@pytest.mark.crash
def test_a_server_that_is_alive_but_silent_is_an_error_and_no_reason_to_start_a_second(world: World) -> None:
    binary, starts = world.counting_server()
    user = world.start(TASKRUNNER_SERVER_BIN=binary)
    server = server_of(user.locate(world.url))
    user.ask("setattr(server, '_ANSWER_TIMEOUT', 0.1), setattr(launch, '_REPLY_TIMEOUT', 0.1)")
    os.kill(server, signal.SIGSTOP)
    answer = user.ask(f"locate({world.url!r})")
    os.kill(server, signal.SIGCONT)
    assert answer.startswith(f"EmbeddedServerError: Process {server} runs")
    assert "does not answer" in answer
    user.ask("setattr(server, '_ANSWER_TIMEOUT', 10), setattr(launch, '_REPLY_TIMEOUT', 1)")
    assert server_of(user.locate(world.url)) == server
    assert starts() == 1


@pytest.mark.crash
@pytest.mark.slow  # the watcher waits five seconds before it ends a server by force
def test_a_server_in_an_endless_script_is_alive_but_does_not_outlive_its_users(world: World) -> None:
    user = world.start()
    address = user.locate(world.url)
    server = server_of(address)
    with client(address) as connection:
        connection.config_set("lua-time-limit", "10")
    endless = "import redis, sys; redis.Redis.from_url(sys.argv[1]).eval('while true do end', 0)"
    script = subprocess.Popen([sys.executable, "-c", endless, address], stderr=subprocess.DEVNULL)
    try:
        eventually(lambda: (reply_to_ping(address.removeprefix("unix://")) or b"").startswith(b"-BUSY"))
        assert user.locate(world.url) == address
        assert user.ask("records") == []
        user.kill()
        eventually(lambda: is_gone(server))
    finally:
        script.kill()
        script.wait()


def remove(folder: Path) -> None:
    shutil.rmtree(folder)


def move(folder: Path) -> None:
    folder.rename(folder.with_name("moved"))


@pytest.mark.parametrize("away", [remove, move])
def test_a_folder_that_is_gone_gets_a_new_server_which_outlives_the_end_of_the_old_one(
    world: World, away: Callable[[Path], None]
) -> None:
    user = world.start()
    address = user.locate(world.url)
    server = server_of(address)
    away(world.home / "data")
    assert user.locate(world.url) == address
    eventually(lambda: is_gone(server))  # it takes its socket away as it ends, at a path where there is another one now
    with client(address) as connection:
        assert connection.ping()
    assert server_of(address) != server


@pytest.mark.parametrize("name", ["a b%20c#d?e é", "{title} {{}", "long" * 40])
def test_a_folder_may_have_any_name(world: World, name: str) -> None:
    url = f"embedded://{world.home}/{name}"
    first, second = world.start(), world.start()
    address = first.locate(url)
    assert second.locate(url) == address
    with client(address) as connection:
        assert connection.ping()
    assert (world.home / name / "taskrunner-valkey" / "data").is_dir()
