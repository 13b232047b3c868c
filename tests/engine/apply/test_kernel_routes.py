"""Routes of a real kernel in bulk, and the bell that tells others' changes from ours."""

from __future__ import annotations

import os
import subprocess
import sys
from ipaddress import ip_address, ip_network

import pytest

from engine.apply.bell import EVERYTHING, Bell, Heard
from engine.apply.kernel_routes import KernelRouteDriver
from engine.errors import KernelError
from engine.pod.namespace import run_inside
from tests.engine.namespaces import ip, namespaces, path_of, wait_for

pytestmark = [pytest.mark.root, pytest.mark.needs("ip")]


@pytest.fixture
def host():
    """A namespace with a device `under` on 192.0.2.0/24, and a function that runs things in it."""
    with namespaces(1) as (name,):
        ip("link", "add", "under", "type", "veth", "peer", "name", "far", namespace=name)
        for device in ("lo", "far", "under"):
            ip("link", "set", device, "up", namespace=name)
        ip("addr", "add", "192.0.2.1/24", "dev", "under", namespace=name)
        ip("addr", "add", "2001:db8::1/64", "dev", "under", "nodad", namespace=name)
        yield name, lambda function: run_inside(path_of(name), function, where="host")


@pytest.fixture
def driver(host):
    made = KernelRouteDriver(lambda: "under")
    host[1](made.actual)  # opens its socket there
    yield made
    made.close()


def many(count):
    """Prefixes of both families, as WireGuard's test has them: more than one answer of the kernel holds."""
    four = [ip_network((0x0A000000 + (number << 8), 24)) for number in range(count // 2)]
    return [*four, *(ip_network(((0xFD00 << 112) + (number << 64), 64)) for number in range(count - len(four)))]


@pytest.mark.parametrize("count", [4_000, pytest.param(130_560, marks=pytest.mark.slow)])
def test_many_routes_are_set_listed_and_removed(host, driver, count):
    wanted = dict.fromkeys(many(count), ())

    def there_and_back():
        assert driver.change(wanted) == {}
        assert not driver.audit(EVERYTHING), "the kernel lists what was set"
        assert driver.actual() == wanted
        assert driver.change(dict.fromkeys(wanted)) == {}
        assert not driver.audit(EVERYTHING)
        assert driver.actual() == {}

    host[1](there_and_back)


def test_each_refused_route_is_told_and_the_others_are_set(host, driver):
    name, run = host
    ip("route", "add", "10.9.0.0/16", "via", "192.0.2.9", namespace=name)
    good = dict.fromkeys(many(600), ())
    taken, unreachable = ip_network("10.9.0.0/16"), ip_network("10.8.0.0/16")
    good.pop(taken, None)
    wanted = {**good, taken: (), unreachable: (ip_address("203.0.113.9"),)}
    failed = run(lambda: driver.change(wanted))
    assert set(failed) == {taken, unreachable}
    assert "is not Towpath's" in str(failed[taken])
    assert "same subnet" in str(failed[unreachable])
    assert "10.9.0.0/16" in str(failed[taken])
    assert driver.actual() == good
    assert "10.9.0.0/16 via 192.0.2.9" in ip("route", namespace=name), "somebody else's route is no victim"


def test_a_missing_device_is_said_of_each_route(host):
    driver = KernelRouteDriver(lambda: "nowhere")
    failed = host[1](lambda: driver.change(dict.fromkeys(many(3), ())))
    driver.close()
    assert len(failed) == 3
    assert all("device nowhere is missing" in str(error) for error in failed.values())
    with pytest.raises(KernelError, match="nowhere"):
        host[1](lambda: driver.set(many(1)[0], ()))


def test_removing_a_route_that_is_gone_is_no_failure(host, driver):
    assert host[1](lambda: driver.change({ip_network("10.8.0.0/16"): None})) == {}


def heard_until(bell, enough):
    heard = Heard()

    def listen():
        nonlocal heard
        heard += bell.listen()
        return enough(heard)

    wait_for(listen)
    return heard


@pytest.fixture
def bell(host, driver):
    made = host[1](lambda: Bell(driver.port))
    made.listen()
    yield made
    made.close()


def test_the_bell_is_deaf_to_our_own_routes_only(host, driver, bell):
    name, run = host
    run(lambda: driver.change(dict.fromkeys(many(600), ())))
    ip("route", "add", "198.18.0.0/15", "dev", "under", namespace=name)
    heard = heard_until(bell, bool)
    assert [str(news.prefix) for news in heard.routes] == ["198.18.0.0/15"]
    assert not heard.devices
    assert not driver.audit(heard), "which is none of ours"


def test_a_route_of_ours_that_somebody_removes_or_replaces_is_missed(host, driver, bell):
    name, run = host
    wanted = {ip_network("10.1.0.0/16"): (), ip_network("10.2.0.0/16"): (ip_address("192.0.2.9"),)}
    assert run(lambda: driver.change(wanted)) == {}
    ip("route", "del", "10.1.0.0/16", namespace=name)
    assert run(lambda: driver.audit(heard_until(bell, bool)))
    assert list(driver.actual()) == [ip_network("10.2.0.0/16")]
    assert run(lambda: driver.change(wanted)) == {}
    ip("route", "replace", "10.2.0.0/16", "via", "192.0.2.8", namespace=name)
    assert run(lambda: driver.audit(heard_until(bell, bool)))
    assert list(driver.actual()) == [ip_network("10.1.0.0/16")]


def test_a_device_that_changes_puts_everything_in_doubt(host, driver, bell):
    name, run = host
    assert run(lambda: driver.change({ip_network("10.1.0.0/16"): ()})) == {}
    ip("link", "set", "under", "down", namespace=name)  # takes IPv4 routes along, and the kernel says nothing of them
    assert run(lambda: driver.audit(heard_until(bell, lambda heard: heard.devices)))
    assert driver.actual() == {}


def test_more_news_than_can_be_kept_means_everything(host, bell):
    lines = "".join(f"route add 10.{n >> 8}.{n & 255}.0/24 dev under\n" for n in range(6000))
    subprocess.run(["ip", "-n", host[0], "-batch", "-"], input=lines, text=True, check=True, capture_output=True)
    assert heard_until(bell, lambda heard: heard.devices) == Heard(devices=True)


LIMITED = """
import resource, sys
from ipaddress import ip_network
from engine.apply.kernel_routes import KernelRouteDriver
from engine.errors import KernelError
from engine.netns import NEWNET, unshare
unshare(NEWNET)
driver = KernelRouteDriver(lambda: "lo")
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
try:
    driver.actual()
except (OSError, KernelError) as error:
    assert "too many open files" in str(error).lower(), error
else:
    sys.exit("no error without descriptors")
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
assert driver.change({ip_network("10.1.0.0/16"): None}) == {}
"""


def test_without_descriptors_there_is_an_error_and_later_it_works():
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", LIMITED], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
