"""What real container runtimes need to start something here: a root file system, and configuration of their own."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path

from tests.engine.cni.runtime import PLUGINS, SHIM, runtime_of
from tests.engine.namespaces import path_of, wait_for

FOLDERS = ("bin", "dev", "etc", "proc", "run", "sys", "tmp", "var")


def root_filesystem(folder):
    """A folder that holds busybox alone."""
    root = folder / "rootfs"
    for name in FOLDERS:
        (root / name).mkdir(parents=True)
    shutil.copy("/bin/busybox", root / "bin" / "busybox")
    return root


def install(node, folder, *, version="1.0.0", others=(), **keys):
    """Plugins and a network configuration for one node: (folder of plugins, folder of networks)."""
    plugins, networks = folder / "bin", folder / "net.d"
    plugins.mkdir(parents=True)
    networks.mkdir()
    for plugin in Path(PLUGINS).iterdir():
        (plugins / plugin.name).symlink_to(plugin)
    shutil.copy(SHIM, plugins / SHIM.name)
    ours = runtime_of(node).configuration(**keys)
    plugin = {key: value for key, value in ours.items() if key not in {"cniVersion", "name"}}
    conflist = {"cniVersion": version, "name": "pods", "plugins": [plugin, *others]}
    (networks / "10-towpath.conflist").write_text(json.dumps(conflist))
    return plugins, networks


def identifier():
    """Of a container. Their control groups stand side by side for the whole machine, whoever made them."""
    return f"test-{secrets.token_hex(8)}"


class Podman:
    """Podman with its CNI backend on one node, with everything of its own in `folder`."""

    def __init__(self, node, folder, **options):
        self.node = node
        self.folder = folder
        plugins, networks = install(node, folder, version="0.4.0", **options)
        self.root = root_filesystem(folder)
        self.runroot = Path(tempfile.mkdtemp(prefix="tp"))  # podman takes no path of more than 50 characters
        configuration = folder / "containers.conf"
        configuration.write_text(
            f'[network]\nnetwork_backend = "cni"\ncni_plugin_dirs = ["{plugins}"]\nnetwork_config_dir = "{networks}"\n'
            '[engine]\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\nruntime = "runc"\n'
            '[containers]\nlog_driver = "k8s-file"\ndefault_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]\n'
        )
        self.environment = {**os.environ, "CONTAINERS_CONF": str(configuration), "TMPDIR": str(folder)}

    def podman(self, *arguments):
        store = ["--root", self.folder / "store", "--runroot", self.runroot, "--tmpdir", self.folder / "tmp"]
        command = ["nsenter", f"--net={path_of(self.node.host)}", "podman", *store, "--storage-driver", "vfs", *arguments]
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=90, check=False)

    def run(self, *command, options=()):
        """What the container said; it is gone after that."""
        return self.podman("run", "--rm", "--network", "pods", *options, "--rootfs", self.root, "/bin/busybox", *command)

    def close(self):
        self.podman("rm", "--all", "--force", "--time", "0")
        shutil.rmtree(self.runroot, ignore_errors=True)


class Containerd:
    """containerd on one node, asked by ctr. The folders it looks for CNI in are its own by a mount namespace."""

    def __init__(self, node, folder, **options):
        self.folder = folder
        plugins, networks = install(node, folder, **options)
        self.root = root_filesystem(folder)
        self.socket = folder / "containerd.sock"
        configuration = folder / "config.toml"
        disabled = ", ".join(f'"io.containerd.{name}"' for name in ("grpc.v1.cri", "internal.v1.opt"))
        configuration.write_text(
            f'version = 2\nroot = "{folder / "root"}"\nstate = "{folder / "state"}"\n'
            f'disabled_plugins = [{disabled}]\n[grpc]\naddress = "{self.socket}"\n'
        )
        over = (("/etc/cni", networks), ("/opt/cni", plugins))
        mounts = " && ".join(
            f"mount -t tmpfs none {place} && mkdir {place}/{name} && mount --bind {source} {place}/{name}"
            for (place, source), name in zip(over, ("net.d", "bin"), strict=True)
        )
        self.enter = [
            *("unshare", "--mount", "--propagation", "slave", "sh", "-ec"),
            f'{mounts} && exec nsenter --net={path_of(node.host)} "$@"',
            "sh",
        ]
        self.log = (folder / "log").open("w")
        self.process = subprocess.Popen(
            [*self.enter, "containerd", "--config", configuration], stdout=self.log, stderr=self.log
        )
        try:
            wait_for(lambda: self.ctr("version").returncode == 0, 30)
        except BaseException:
            self.close()
            raise

    def ctr(self, *arguments):
        command = [*self.enter, "ctr", "--address", self.socket, *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)

    def run(self, *command):
        return self.ctr("run", "--rm", "--cni", "--rootfs", self.root, identifier(), "/bin/busybox", *command)

    def close(self):
        if self.process.poll() is None:
            self._end_tasks()
        self.process.terminate()
        self.process.wait(30)
        self.log.close()
        wait_for(lambda: self.shims() == [])

    def shims(self):
        """The processes that containerd has left in charge of containers."""
        return [process for process in Path("/proc").glob("[0-9]*") if self._is_shim(process)]

    def _is_shim(self, process):
        try:
            program, *arguments = (process / "cmdline").read_text().split("\0")
        except (OSError, UnicodeDecodeError):
            return False
        return "containerd-shim" in program and str(self.socket) in arguments

    def _end_tasks(self):
        """Each has a shim, which outlives containerd and ends only with its task, even one whose process is gone."""
        for task in self.ctr("task", "list", "--quiet").stdout.split():
            self.ctr("task", "delete", "--force", task)


@contextmanager
def places_for_mounts(*places):
    """Folders to mount something over; those that were not there go again."""
    made = []
    try:
        for place in map(Path, places):
            for folder in reversed([place, *place.parents]):
                if not folder.exists():
                    folder.mkdir()
                    made.append(folder)
        yield
    finally:
        for folder in reversed(made):
            folder.rmdir()
