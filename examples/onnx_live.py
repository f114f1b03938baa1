"""Turn-taking predictions live from an exported model, with onnxruntime and numpy alone.

    vap-export checkpoints/sample/discrete/fold-0 --out model.onnx
    python examples/onnx_live.py model.onnx silero_vad.onnx < call.raw

Standard input is 16-bit PCM at 16 kHz, two channels, a speaker each. silero_vad.onnx is in the wheel of
silero-vad. Prints a line a frame of 10 ms: the time in seconds, voice activity, and who speaks next.
"""

import sys
from pathlib import Path

import numpy as np
import onnxruntime

TYPES = {"float": np.float32, "int64": np.int64, "int32": np.int32, "uint8": np.uint8}


def session(path: str | Path) -> onnxruntime.InferenceSession:
    """Load a model to run on one core."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


class Model:
    """An exported model and its state: a piece of audio in, the predictions of a piece out."""

    def __init__(self, path: str | Path) -> None:
        self._session = session(path)
        self._outputs = [value.name for value in self._session.get_outputs()]
        # A stream starts from zeros.
        self._inputs = {
            value.name: np.zeros(value.shape, TYPES[value.type[len("tensor(") : -1]])
            for value in self._session.get_inputs()
        }
        self.frames = len(self._inputs["va"])  # in a piece
        self.samples = self._inputs["samples"].shape[1]

    def push(self, samples: np.ndarray, va: np.ndarray) -> dict[str, np.ndarray]:
        """Return the predictions by name, (frames,) each.

        Args:
            samples: (2, self.samples) float32, full scale 1.
            va: (self.frames, 2) uint8, 1 for speech, in the frames that are predicted. These are the piece's
                own, but one frame earlier: of the first piece, frame -1 and what follows.
        """
        inputs = {**self._inputs, "samples": samples, "va": va}
        outputs = dict(zip(self._outputs, self._session.run(None, inputs), strict=True))
        for name in self._inputs:
            if (after := f"next_{name}") in outputs:  # small: replaced
                self._inputs[name] = outputs.pop(after)
            elif (new := f"new_{name}") in outputs:  # keys and values of two windows: added in their place
                for cache, column, place in zip(
                    self._inputs[name], outputs.pop(new), outputs["place"], strict=True
                ):
                    cache[..., place] = column
        del outputs["place"]
        return outputs


class VoiceActivity:
    """Silero VAD on both channels, in chunks of 32 ms."""

    CHUNK, CONTEXT, FRAME = 512, 64, 160  # samples
    THRESHOLD, HYSTERESIS = 0.5, 0.15

    def __init__(self, path: str | Path) -> None:
        self._session = session(path)
        self._state = np.zeros((2, 2, 128), np.float32)
        self._held = np.zeros((2, self.CONTEXT), np.float32)
        self._active = np.zeros(2, np.uint8)
        self._frame = self._chunk = 0

    def push(self, samples: np.ndarray) -> np.ndarray:
        """Return the next frames (n, 2) whose middle is in a chunk that samples (2, any) complete."""
        self._held = np.concatenate([self._held, samples], axis=1)
        frames = [np.zeros((0, 2), np.uint8)]
        while self._held.shape[1] >= self.CONTEXT + self.CHUNK:
            inputs = {"input": self._held[:, : self.CONTEXT + self.CHUNK], "state": self._state}
            inputs["sr"] = np.array(16_000, np.int64)
            probability, self._state = self._session.run(None, inputs)
            self._held = self._held[:, self.CHUNK :]
            threshold = np.where(self._active, self.THRESHOLD - self.HYSTERESIS, self.THRESHOLD)
            self._active = (probability[:, 0] >= threshold).astype(np.uint8)
            self._chunk += 1
            end = -(-(self._chunk * self.CHUNK - self.FRAME // 2) // self.FRAME)
            frames.append(np.repeat(self._active[None], end - self._frame, axis=0))
            self._frame = end
        return np.concatenate(frames)


def predictions(model: Model, detector, pieces):
    """Yield time_s, va (2,) and predictions by name for each frame, while pieces (2, model.samples) come."""
    waiting, va = [], np.zeros((1, 2), np.uint8)  # frame -1 is silent, and left out below
    frame = -1
    for samples in pieces:
        waiting.append(samples)
        va = np.concatenate([va, detector.push(samples)])
        while waiting and len(va) >= model.frames:
            now, va = va[: model.frames], va[model.frames :]
            predicted = model.push(waiting.pop(0), now)
            for i in range(model.frames):
                if frame >= 0:
                    yield frame / 100, now[i], {name: values[i] for name, values in predicted.items()}
                frame += 1


def read_pcm(source, samples: int):
    """Yield pieces (2, samples) of 16-bit PCM, two channels."""
    while len(block := source.read(4 * samples)) == 4 * samples:
        yield np.ascontiguousarray(np.frombuffer(block, "<i2").reshape(-1, 2).T, np.float32) / 32768


if __name__ == "__main__":
    model, detector = Model(sys.argv[1]), VoiceActivity(sys.argv[2])
    for time_s, va, predicted in predictions(model, detector, read_pcm(sys.stdin.buffer, model.samples)):
        print(f"{time_s:.2f}", *va, *(f"{name} {value:.4f}" for name, value in predicted.items()), flush=True)
