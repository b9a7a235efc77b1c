"""Operations on disks: provisioning media, the resource disk, swap, timeouts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from waagent.markers import changes, reads

if TYPE_CHECKING:
    from waagent.agent import Agent


@reads(but=())
def find_provisioning_media(agent: Agent, but: tuple[str, ...]) -> str | None:
    """Find the device that may hold the provisioning data. Reading.

    When: provisioning; once more for each device that turned out to hold something else.
    Arguments: ``agent``; ``but``: devices that were looked at already, in vain.
    Returns: the likeliest other device (``/dev/sr0``), or an empty text when there is none.
    Answers: the first.
    Failure: the next plugin is asked.
    Deadline: 120 s.
    Again: yes.
    Example::

        @hookimpl
        def find_provisioning_media(agent, but):
            found = sorted(glob.glob(agent.paths.at("/dev/cd[0-9]c")))
            return next((device for device in found if device not in but), "")
    """


@changes()
def mount_provisioning_media(agent: Agent, device: str, mount_point: str) -> bool | None:
    """Mount the provisioning media, read-only. Changing.

    When: provisioning.
    Arguments: ``agent``; ``device``; ``mount_point``: an existing directory.
    Returns: ``True`` when it is mounted.
    Answers: the first.
    Failure: the next plugin is asked.
    Deadline: 120 s.
    Again: yes.
    Example::

        @hookimpl
        def mount_provisioning_media(agent, device, mount_point):
            agent.run(("mount", "-o", "ro", "-t", "udf", device, mount_point), check=True)
            return True
    """


@changes()
def unmount_provisioning_media(agent: Agent, mount_point: str) -> bool | None:
    """Unmount the provisioning media. Changing.

    When: provisioning has read it.
    Arguments: ``agent``; ``mount_point``.
    Returns: ``True`` when nothing is mounted there.
    Answers: the first.
    Failure: the next plugin is asked.
    Deadline: 120 s.
    Again: yes.
    Example::

        @hookimpl
        def unmount_provisioning_media(agent, mount_point):
            agent.run(("umount", mount_point), check=True)
            return True
    """


@changes()
def eject_provisioning_media(agent: Agent, device: str) -> bool | None:
    """Eject the provisioning media: it holds the password. Changing.

    When: provisioning is done.
    Arguments: ``agent``; ``device``.
    Returns: ``True`` when it is done, or when the device cannot be ejected.
    Answers: the first.
    Failure: the next plugin is asked.
    Deadline: 120 s.
    Again: yes.
    Example::

        @hookimpl
        def eject_provisioning_media(agent, device):
            agent.run(("cdcontrol", "-f", device, "eject"), check=True)
            return True
    """


@reads()
def find_resource_disk(agent: Agent) -> str | None:
    """Find the temporary disk of this machine size (resourcedisk §2). Reading.

    When: the disk phase of the boot stage. On Linux the resource disk plugin finds the platform's disk by itself: an
        answer there claims a local NVMe disk, and nothing else.
    Arguments: ``agent``.
    Returns: a device (``/dev/nvme1n1``), or an empty text when there is none.
    Answers: the first.
    Failure: the next plugin is asked.
    Deadline: 120 s.
    Again: yes.
    Example::

        @hookimpl
        def find_resource_disk(agent):
            link = agent.paths.at("/dev/disk/azure/local/by-index/1")
            return os.path.realpath(link) if os.path.exists(link) else ""
    """


@reads()
def read_resource_disk(agent: Agent, device: str) -> dict[str, Any] | None:
    """Look at the disk before anything is decided (resourcedisk §4). Reading.

    When: the disk phase, before and between its steps; not on Linux, where the resource disk plugin looks by itself.
    Arguments: ``agent``; ``device``.
    Returns: ``table`` (``gpt``, ``mbr``, ``None``), ``partitions`` (each with ``device``, ``type``: a GUID, or
        hexadecimal as in an MBR, ``filesystem``, ``label``, ``size``, ``contents``: the names on an NTFS one that could
        be looked at, else ``None``, and ``problem``: why it could not, empty when the kernel has no driver),
        ``mounted`` (mount point or ``None``), ``mounted_device`` (what is mounted there), ``size`` (bytes),
        ``read_only``, ``serial``, ``signature`` (of the whole disk, empty for none), ``blank`` (no table, no signature,
        first and last MiB zero), ``holders`` (what is built on it: mappings, RAID, swap).
    Answers: the first.
    Failure: the next plugin is asked.
    Deadline: 120 s.
    Again: yes.
    Example::

        @hookimpl
        def read_resource_disk(agent, device):
            table, partitions = parse_gpart(agent.run(("gpart", "show", device)).stdout)
            return {"table": table, "partitions": partitions, "mounted": mount_point_of(device)}
    """


@changes(deadline=600.0)
def format_resource_disk(agent: Agent, device: str, filesystem: str) -> str | None:
    """Make one partition with a file system. Destroys what is on the disk: the caller has asked for vetoes. Changing.

    When: the disk phase; not on Linux, where the resource disk plugin does it by itself.
    Arguments: ``agent``; ``device``; ``filesystem``: ``ufs``, ….
    Returns: the partition's device.
    Answers: the first.
    Failure: the next plugin is asked.
    Deadline: 600 s.
    Again: yes: a partition made by an earlier call is formatted again.
    Example::

        @hookimpl
        def format_resource_disk(agent, device):
            agent.run(("newfs", "-U", device + "p1"), check=True)
            return device + "p1"
    """


@changes(options=None)
def mount_resource_disk(agent: Agent, partition: str, mount_point: str, options: str | None) -> bool | None:
    """Mount the resource disk. Changing.

    When: the disk phase; not on Linux.
    Arguments: ``agent``; ``partition``: a device; ``mount_point``: an existing directory;
        ``options``: as ``mount -o`` takes them.
    Returns: ``True`` when it is mounted.
    Answers: the first.
    Failure: the next plugin is asked.
    Deadline: 120 s.
    Again: yes.
    Example::

        @hookimpl
        def mount_resource_disk(agent, partition, mount_point):
            agent.run(("mount", "-t", "ufs", partition, mount_point), check=True)
            return True
    """


@changes(deadline=21600.0)
def enable_swap(agent: Agent, path: str, size_mib: int) -> bool | None:
    """Make a swap file and use it. Changing.

    When: the background phase, with ``ResourceDisk.EnableSwap=y``; not on Linux.
    Arguments: ``agent``; ``path``: of the file; ``size_mib``: its size in MiB.
    Returns: ``True`` when that much swap is in use there.
    Answers: the first.
    Failure: the next plugin is asked.
    Deadline: 21600 s.
    Again: yes.
    Example::

        @hookimpl
        def enable_swap(agent, path, size_mib):
            allocate(path, size_mib << 20)
            agent.run(("swapctl", "-a", path), check=True)
            return True
    """


@changes()
def set_scsi_timeout(agent: Agent, seconds: int) -> bool | None:
    """Set the timeout of SCSI disks. Changing.

    When: at start, from ``OS.RootDeviceScsiTimeout``.
    Arguments: ``agent``; ``seconds``.
    Returns: ``True`` when it is done.
    Answers: the first.
    Failure: the next plugin is asked.
    Deadline: 120 s.
    Again: yes.
    Example::

        @hookimpl
        def set_scsi_timeout(agent, seconds):
            agent.run(("sysctl", f"kern.cam.da.default_timeout={seconds}"), check=True)
            return True
    """
