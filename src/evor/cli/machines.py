"""The options of commands whose jobs may be shared out: to processes of this machine, or to a Ray cluster."""

from dataclasses import dataclass, replace

from evor.errors import EvorError, integer
from evor.runtime.parallel import Local, Ray, default_workers


@dataclass(frozen=True, kw_only=True)
class Machines:
    """Options of where jobs run."""

    # Processes side by side on this machine. Left out: one per core.
    workers: int | None = None
    # Ray cluster to run on: auto, or HOST:PORT. Start it first. It needs the extra evor[ray], and folders that all machines share.
    ray: str | None = None
    # GPUs of a job, with --ray; may be a fraction. Left out: 0.75 where the cluster has any, else 0.
    gpus: float | None = None
    # CPUs of a job, with --ray. Left out: 4 where the cluster has GPUs, else 1.
    cpus: int | None = None

    def machines(self, default: int | None = None) -> Local | Ray:
        """The machines that were asked for; left out, so many processes.

        Raises EvorError on options that do not go together, and where a cluster can't run such jobs.
        """
        machines = self._asked(default)
        if isinstance(machines, Ray):
            from evor.runtime.cluster import check_cluster

            check_cluster(machines)  # before anything is written, or generated for hours
        return machines

    def _asked(self, default: int | None) -> Local | Ray:
        if self.ray is None:
            for name in ("gpus", "cpus"):
                if getattr(self, name) is not None:
                    raise EvorError(f"--{name} goes with --ray, which is not given; leave it out, or give --ray too.")
            integer(1, **({} if self.workers is None else {"workers": self.workers}))
            return Local(self.workers or default or default_workers())
        if self.workers is not None:
            raise EvorError(
                "--workers counts processes of this machine, and --ray runs jobs on a cluster; leave one of them out."
            )
        if self.gpus is not None and not (0 <= self.gpus <= 1 or (self.gpus > 1 and float(self.gpus).is_integer())):
            raise EvorError(f"--gpus is {self.gpus:g}; it must be a share from 0 to 1, or a whole number.")
        integer(1, **({} if self.cpus is None else {"cpus": self.cpus}))
        return Ray(self.ray, gpus=self.gpus, cpus=self.cpus)


@dataclass(frozen=True, kw_only=True)
class MachinesWithoutGpu(Machines):
    """Options of where jobs run that need no GPU."""

    # GPUs of a job, with --ray; may be a fraction. Left out: 0.
    gpus: float | None = None
    # CPUs of a job, with --ray. Left out: 1.
    cpus: int | None = None

    def _asked(self, default: int | None) -> Local | Ray:
        machines = super()._asked(default)
        if isinstance(machines, Ray):
            return replace(machines, gpus=machines.gpus or 0.0, cpus=machines.cpus or 1)
        return machines
