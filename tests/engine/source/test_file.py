"""The file source on a real directory: every way in which files get replaced."""

import os
import select
import time
from pathlib import Path

import pytest

from engine.errors import ConfigError, KernelError
from engine.source import inotify
from engine.source.file import LARGEST_FILE, FileSource, read_text

GOOD = '[node]\nname = "node-a"\nprefixes = ["10.244.1.0/24"]\n'
OTHER = GOOD.replace("10.244.1.0", "10.244.7.0")
BROKEN = GOOD.replace("10.244.1.0/24", "10.244.1.9/24")


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "towpath.toml"
    file.write_text(GOOD)
    return file


@pytest.fixture
def source(path):
    with FileSource(str(path)) as source:
        assert prefix_of(source.reload()) == "10.244.1.0/24"
        yield source


def prefix_of(loaded):
    return str(loaded.config.node.prefixes[0])


def next_change(source, seconds=10.0):
    """What `read` answers once the file has changed for it; polled as the daemon does."""
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        if select.select([source], [], [], left)[0]:
            loaded = source.read()
            if loaded is not None:
                return loaded
    pytest.fail("no change was seen")


def is_quiet(source, seconds=0.05):
    """Nothing more is told, whatever events are still to be taken up."""
    while select.select([source], [], [], seconds)[0]:
        if source.read() is not None:
            return False
    return True


def test_written_in_place(source, path):
    path.write_text(OTHER)
    assert prefix_of(next_change(source)) == "10.244.7.0/24"
    assert prefix_of(source.loaded) == "10.244.7.0/24"
    assert is_quiet(source)


def test_replaced_by_rename(source, path):
    new = path.with_suffix(".new")
    new.write_text(OTHER)
    new.rename(path)
    assert prefix_of(next_change(source)) == "10.244.7.0/24"


def test_moved_away_then_written_anew_as_vim_does(source, path):
    path.rename(path.with_suffix(".toml~"))
    with path.open("w") as file:
        file.write(OTHER)
    assert prefix_of(next_change(source)) == "10.244.7.0/24"
    assert source.error is None


def test_replaced_by_a_hard_link(source, path):
    other = path.with_name("other")
    other.write_text(OTHER)
    path.unlink()
    path.hardlink_to(other)
    assert prefix_of(next_change(source)) == "10.244.7.0/24"


def test_config_map_swaps_the_link_of_its_directory(tmp_path):
    volume = tmp_path / "volume"
    for number, text in ((1, GOOD), (2, OTHER)):
        (volume / f"..{number}").mkdir(parents=True)
        (volume / f"..{number}" / "towpath.toml").write_text(text)
    (volume / "..data").symlink_to("..1")
    (volume / "towpath.toml").symlink_to("..data/towpath.toml")
    (tmp_path / "entry").symlink_to(volume / "towpath.toml")
    with FileSource(str(tmp_path / "entry")) as source:
        source.reload()
        (volume / "..data_tmp").symlink_to("..2")
        (volume / "..data_tmp").rename(volume / "..data")
        assert prefix_of(next_change(source)) == "10.244.7.0/24"
        (volume / "..2" / "towpath.toml").write_text(GOOD)  # the watches moved with the link
        assert prefix_of(next_change(source)) == "10.244.1.0/24"


def test_directory_removed_and_made_again(tmp_path):
    folder = tmp_path / "etc"
    folder.mkdir()
    (folder / "towpath.toml").write_text(GOOD)
    with FileSource(str(folder / "towpath.toml")) as source:
        source.reload()
        folder.rename(tmp_path / "old")
        with pytest.raises(ConfigError, match="no such file"):
            next_change(source)
        folder.mkdir()
        (folder / "towpath.toml").write_text(OTHER)
        assert prefix_of(next_change(source)) == "10.244.7.0/24"
        (tmp_path / "old" / "towpath.toml").write_text(BROKEN)  # no longer ours
        assert is_quiet(source)


def test_path_with_dots_and_relative(tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    (tmp_path / "towpath.toml").write_text(GOOD)
    (tmp_path / "a" / "link").symlink_to(".././towpath.toml")
    monkeypatch.chdir(tmp_path)
    with FileSource("a/../a/link") as source:
        source.reload()
        (tmp_path / "towpath.toml").write_text(OTHER)
        assert prefix_of(next_change(source)) == "10.244.7.0/24"


def test_mistakes_leave_the_last_good_one_and_are_told_once(source, path):
    path.write_text(BROKEN)
    with pytest.raises(ConfigError, match=r'towpath.toml:3: node.prefixes\[0\]: "10.244.1.9/24" has host bits set'):
        next_change(source)
    assert prefix_of(source.loaded) == "10.244.1.0/24"
    assert source.error is not None
    path.write_text(BROKEN)
    assert is_quiet(source)
    with pytest.raises(ConfigError, match="host bits"):
        source.reload()
    path.write_text(GOOD)
    assert is_quiet(source)  # what is in force already
    assert source.error is None


def test_comment_is_no_change(source, path):
    path.write_text("# a comment\n" + GOOD)
    assert is_quiet(source)


def test_unrelated_files_are_no_change(source, path):
    path.with_name("other.toml").write_text(OTHER)
    assert not source.read()


def test_writer_that_pauses_is_waited_for(source, path):
    halves = iter([GOOD[:20], OTHER])
    path.write_text(next(halves))
    waits = []

    def wait(seconds):  # the writer goes on while the source waits
        waits.append(seconds)
        path.write_text(next(halves))
        return True

    source._watch.wait = wait
    assert prefix_of(next_change(source)) == "10.244.7.0/24"
    assert len(waits) == 1


def test_writer_that_never_ends_is_not_waited_for_forever(source, path):
    path.write_text(BROKEN)
    waits = []
    source._watch.wait = lambda seconds: waits.append(seconds) or True
    with pytest.raises(ConfigError, match="host bits"):
        next_change(source)
    assert len(waits) == 10


def test_file_removed_is_told(source, path):
    path.unlink()
    with pytest.raises(ConfigError, match="no such file"):
        next_change(source)
    assert prefix_of(source.loaded) == "10.244.1.0/24"


def test_overrides_survive_a_reload(path):
    with FileSource(str(path), environment={"TOWPATH_LOG_LEVEL": "debug"}, flags={"network.mtu": "1400"}) as source:
        assert source.reload().config.network.mtu == 1400
        path.write_text(OTHER)
        loaded = next_change(source)
        assert loaded.config.log.level == "debug"
        assert loaded.origins["network.mtu"] == "flag network.mtu"


def test_close_twice(path):
    source = FileSource(str(path))
    source.close()
    source.close()


# -- the text ------------------------------------------------------------------
def test_missing_file(tmp_path):
    with pytest.raises(ConfigError) as caught:
        read_text(str(tmp_path / "none"))
    assert str(caught.value) == f"{tmp_path}/none: there is no such file (create it, or name another)"


def test_unreadable_file(path, monkeypatch):
    def refuse(path, flags):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(ConfigError) as caught:
        read_text(str(path))
    assert str(caught.value) == f"{path}: cannot be read: Permission denied (check its path and permissions)"


def test_directory_and_pipe_are_no_files(tmp_path):
    with pytest.raises(ConfigError, match=r"Is a directory|not a regular file"):
        read_text(str(tmp_path))
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigError, match="is not a regular file"):
        read_text(str(tmp_path / "pipe"))


def test_huge_file(tmp_path):
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(LARGEST_FILE + 1)
    with pytest.raises(ConfigError, match=f"is larger than {LARGEST_FILE} bytes"):
        read_text(str(tmp_path / "huge"))


def test_text_in_another_encoding(tmp_path):
    (tmp_path / "latin").write_bytes(b'[node]\nname = "\xe4"\n')
    with pytest.raises(ConfigError, match=r"latin:2: is not UTF-8 text \(save it as UTF-8\)") as caught:
        read_text(str(tmp_path / "latin"))
    assert caught.value.line == 2


# -- what the kernel may do ------------------------------------------------------
def test_no_inotify(path, monkeypatch):
    def refuse(name, *arguments):
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(inotify, "_call", refuse)
    with pytest.raises(KernelError) as caught:
        FileSource(str(path))
    assert "cannot watch it: Too many open files" in str(caught.value)
    assert "sysctl" in str(caught.value)


def test_no_more_watches(path, monkeypatch):
    real = inotify._call

    def refuse(name, *arguments):
        if name == "inotify_add_watch":
            raise OSError(28, "No space left on device")
        return real(name, *arguments)

    monkeypatch.setattr(inotify, "_call", refuse)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(KernelError, match="No space left"):
        FileSource(str(path))
    assert len(os.listdir("/proc/self/fd")) == before


def test_directory_that_may_not_be_read_is_passed(path, monkeypatch):
    real = inotify._call

    def refuse(name, *arguments):
        if name == "inotify_add_watch" and arguments[1] == b"/":
            raise PermissionError(13, "Permission denied")
        return real(name, *arguments)

    monkeypatch.setattr(inotify, "_call", refuse)
    with FileSource(str(path)) as source:
        source.reload()
        path.write_text(OTHER)
        assert prefix_of(next_change(source)) == "10.244.7.0/24"


def test_circle_of_links(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with FileSource(str(tmp_path / "a")) as source:
        with pytest.raises(ConfigError, match="Too many levels of symbolic links"):
            source.reload()
        (tmp_path / "a").unlink()
        (tmp_path / "a").write_text(GOOD)
        assert prefix_of(next_change(source)) == "10.244.1.0/24"


def test_path_through_a_file(path):
    with FileSource(str(path / "inside")) as source, pytest.raises(ConfigError, match="Not a directory"):
        source.reload()


def test_overflow_of_the_queue_counts_as_a_change(source):
    assert source._watch._concerns(inotify._EVENT.pack(-1, inotify.IN_Q_OVERFLOW, 0, 0))
    name = b"other".ljust(16, b"\0")
    assert not source._watch._concerns(inotify._EVENT.pack(1, inotify.IN_CREATE, 0, 16) + name)


def test_descriptors_are_not_inherited(source):
    assert not os.get_inheritable(source.fileno())
    assert not os.get_blocking(source.fileno())


def test_read_text_of_a_good_file(path: Path):
    assert read_text(str(path)) == GOOD
