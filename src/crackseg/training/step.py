"""Forward and backward pass of an optimiser step, at once or in parts that fit into a small GPU.

Shape legend: B batch, H rows, W columns.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from crackseg.devices import full_float32
from crackseg.errors import CracksegError, first_line
from crackseg.training.agreement import FlipAgreement
from crackseg.training.losses import Loss
from crackseg.training.step_graph import StepGraph, compute_maps
from crackseg.types import ModelOutput


@dataclass(frozen=True)
class Stepper:
    """Compute losses and gradients of batches.

    Args:
        network: in training mode; as it is, compiled, or wrapped for several processes.
        loss_function: of the whole batch.
        device, precision: see crackseg.devices.
        scaler: scales the loss where float16 gradients would vanish; disabled elsewhere.
        graph: of the same network, loss and precision; None computes kernel by kernel.
        memory_format: of the images, as the network's weights have it.
        agreement: a second term of the loss; with it, no graph is used.
    """

    network: nn.Module
    loss_function: Loss
    device: torch.device
    precision: torch.dtype
    scaler: torch.amp.GradScaler
    graph: StepGraph | None = None
    memory_format: torch.memory_format = torch.channels_last
    agreement: FlipAgreement | None = None

    @full_float32()
    def compute_gradients(
        self,
        images_B3HW: torch.Tensor,
        masks_B1HW: torch.Tensor,
        *,
        num_parts: int = 1,
        num_counted: int | None = None,
        step: int = 0,
    ) -> torch.Tensor:
        """Add the gradients of one batch to those of the parameters.

        Args:
            images_B3HW: uint8, on any device.
            masks_B1HW: uint8 of {0, 1}.
            num_parts: at most B. The memory is that of a part; loss and gradients are those of the whole batch,
                except for batch normalisation, whose statistics are those of a part.
            num_counted: patches, from the first, that count in loss and gradient; None: all. The others are there
                because every process must compute something.
            step: number of the step, see FlipAgreement.
        Returns:
            The batch's loss, a scalar on ``device``, without gradient.
        """
        # Both copies run while the GPU computes, where the loader has put the batch into pinned memory.
        images_B3HW = images_B3HW.to(self.device, non_blocking=True)
        masks_B1HW = masks_B1HW.to(self.device, non_blocking=True)
        if num_parts == 1:
            if self.graph is not None and num_counted is None and self.agreement is None:
                recorded_loss = self.graph(images_B3HW, masks_B1HW)
                if recorded_loss is not None:
                    self.scaler.scale(recorded_loss).backward()
                    return recorded_loss.detach().clone()  # the next step writes to the same memory
            taught_B1HW = self._teach(images_B3HW[:num_counted], step)
            output = self._forward(images_B3HW)
            if num_counted is not None:
                masks_B1HW = masks_B1HW[:num_counted]
                output = ModelOutput(
                    output.logits[:num_counted], tuple(maps[:num_counted] for maps in output.side_logits)
                )
            loss = self._loss(output, masks_B1HW, taught_B1HW)
            self.scaler.scale(loss).backward()
            return loss.detach()
        assert num_counted is None, "a process without patches has one part"
        return self._compute_in_parts(images_B3HW.tensor_split(num_parts), masks_B1HW, step)

    def _teach(self, images_B3HW: torch.Tensor, step: int) -> torch.Tensor | None:
        if self.agreement is None:
            return None
        return self.agreement.teach(images_B3HW, step, self.precision, self.memory_format)

    def _loss(
        self, output: ModelOutput, masks_B1HW: torch.Tensor, taught_B1HW: torch.Tensor | None
    ) -> torch.Tensor:
        loss = self.loss_function(output, masks_B1HW)
        if self.agreement is None or taught_B1HW is None:
            return loss
        return loss + self.agreement.distance(output.logits, taught_B1HW)

    def _compute_in_parts(
        self, parts: tuple[torch.Tensor, ...], masks_B1HW: torch.Tensor, step: int
    ) -> torch.Tensor:
        """Compute in two passes: the logits of all parts, for the loss and its gradient; then backward part by part.

        Adding up the parts' own losses would be cheaper by a forward pass, and wrong: the focal loss divides sums
        over the whole batch, and the mean of the parts' quotients is another loss.
        """
        with torch.no_grad(), self._rehearsal():
            outputs = [self._forward(part) for part in parts]
            taught = [maps for part in parts if (maps := self._teach(part, step)) is not None]
        logits, *side_logits = (
            torch.cat(maps).requires_grad_() for maps in zip(*map(_list_maps, outputs), strict=True)
        )
        output = ModelOutput(logits, tuple(side_logits))
        loss = self._loss(output, masks_B1HW, torch.cat(taught) if taught else None)
        self.scaler.scale(loss).backward()
        gradients = [
            maps.grad.tensor_split(len(parts)) for maps in (logits, *side_logits) if maps.grad is not None
        ]
        for number, part in enumerate(parts):
            is_last = number == len(parts) - 1
            # Processes exchange gradients once, with the last part.
            with contextlib.nullcontext() if is_last else _no_exchange(self.network):
                part_maps = _list_maps(self._forward(part))
                torch.autograd.backward(part_maps, [gradient[number] for gradient in gradients])
        return loss.detach()

    def _forward(self, images_B3HW: torch.Tensor) -> ModelOutput:
        return compute_maps(self.network, images_B3HW, self.precision, self.memory_format)

    @contextlib.contextmanager
    def _rehearsal(self) -> Iterator[None]:
        """Undo the side effects of a pass that is repeated: random numbers of dropout and running statistics."""
        recording = [m for m in self.network.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
        for module in recording:
            module.track_running_stats = False
        try:
            with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
                yield
        finally:
            for module in recording:
                module.track_running_stats = True


def choose_memory_format(network: nn.Module, device: torch.device) -> torch.memory_format:
    """Choose the memory format in which an architecture's training step is fastest (measured for the CPU)."""
    contiguous = device.type == "cpu" and getattr(network, "contiguous_on_cpu", False)
    return torch.contiguous_format if contiguous else torch.channels_last


def build_stepper(
    network: nn.Module, loss_function: Loss, device: torch.device, precision: torch.dtype
) -> Stepper:
    """Build the stepper of a process that trains alone: with a scaler for float16, and recorded on CUDA.

    The network gets the memory format that is fastest for it.
    """
    memory_format = choose_memory_format(network, device)
    network.to(memory_format=memory_format)
    scaler = torch.amp.GradScaler(device.type, enabled=precision == torch.float16)
    graph = StepGraph(network, loss_function, precision) if device.type == "cuda" else None
    return Stepper(network, loss_function, device, precision, scaler, graph, memory_format)


def _list_maps(output: ModelOutput) -> list[torch.Tensor]:
    return [output.logits, *output.side_logits]


def _no_exchange(network: nn.Module) -> contextlib.AbstractContextManager:
    no_sync = getattr(network, "no_sync", None)
    return no_sync() if callable(no_sync) else contextlib.nullcontext()


def compile_network(network: nn.Module) -> nn.Module:
    """Let torch fuse the network's operations; the first step is slow, later ones are faster."""
    return torch.compile(network)  # type: ignore[return-value]


_NO_MEMORY = (
    "the machine's memory is too small for a training step ({}); lower train.batch_size, augment.crop_px or "
    "predict.batch_size"
)


@contextlib.contextmanager
def explained_step_errors() -> Iterator[None]:
    """Raise a clear error if torch cannot compile a network, or if the memory of the GPU or machine is too small."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise CracksegError(
            f"a training step does not fit into the GPU's memory ({first_line(error)}); raise "
            "train.accumulate, which computes the same step in parts, or lower augment.crop_px or predict.batch_size"
        ) from error
    except MemoryError as error:
        raise CracksegError(_NO_MEMORY.format(" ".join(str(error).split())[:200])) from error
    except RuntimeError as error:
        said = " ".join(str(error).split())[:200]
        if "DataLoader worker" in said:
            raise CracksegError(
                f"a process that augments images was killed ({said}); most likely the machine, or /dev/shm, ran out of "
                "memory. Lower train.num_workers, which changes no result: the same command resumes from the last "
                "checkpoint"
            ) from error
        if "DefaultCPUAllocator" in said:
            raise CracksegError(_NO_MEMORY.format(said)) from error
        if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            raise
        raise CracksegError(
            f"train.compile: torch cannot compile this network here ({' '.join(str(error).split())[:200]}); it needs a "
            "C++ compiler, and Triton on a GPU. Set train.compile to false"
        ) from error
