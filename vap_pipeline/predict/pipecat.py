"""A turn analyzer for pipecat (extra ``[pipecat]``): a turn is over when the model expects the bot."""

import numpy as np
from pipecat.audio.turn.base_turn_analyzer import BaseTurnAnalyzer, BaseTurnParams, EndOfTurnState
from pipecat.metrics.metrics import MetricsData, TurnMetricsData

from vap_pipeline.predict.predictor import Predictor

RATE_HZ = 16_000  # until pipecat sets the pipeline's


class VapTurnParams(BaseTurnParams):
    """When a turn is over.

    Attributes:
        threshold: in mutual silence, the probability that the bot speaks next from which the turn is over.
        stop_secs: seconds of silence after which it is over in any case.
    """

    threshold: float = 0.5
    stop_secs: float = 3.0


class VapTurnAnalyzer(BaseTurnAnalyzer):
    """Says when the user's turn is over. Speaker A of the model is the user, speaker B the bot.

    The model listens to the whole dialogue: the end of a turn does not reset it.

    Args:
        predictor: from :func:`vap_pipeline.load`.
        params: when a turn is over.
        sample_rate: of the audio, samples a second; None for the pipeline's.
    """

    def __init__(
        self, predictor: Predictor, params: VapTurnParams | None = None, sample_rate: int | None = None
    ) -> None:
        super().__init__(sample_rate=sample_rate)
        self._predictor, self._params = predictor, params or VapTurnParams()
        self._p_bot = 0.0  # in the last frame; 0 while somebody speaks
        self._triggered, self._silence_s = False, 0.0
        self._metrics: TurnMetricsData | None = None  # of the last audio
        self.set_sample_rate(RATE_HZ)

    def set_sample_rate(self, sample_rate: int) -> None:
        """Start a new signal, at a rate in samples a second."""
        super().set_sample_rate(sample_rate)
        self._stream = self._predictor.stream(self.sample_rate)
        self._bot = np.zeros(0, np.int16)  # what the bot plays from now on

    @property
    def speech_triggered(self) -> bool:
        """Whether the user has spoken in this turn."""
        return self._triggered

    @property
    def params(self) -> VapTurnParams:
        """When a turn is over."""
        return self._params

    def append_bot_audio(self, buffer: bytes) -> None:
        """Take 16-bit mono PCM that the bot plays from now on; without it the bot's channel is silent."""
        self._bot = np.concatenate([self._bot, np.frombuffer(buffer, np.int16)])

    def append_audio(self, buffer: bytes, is_speech: bool) -> EndOfTurnState:
        """Take 16-bit mono PCM of the user; return COMPLETE when the turn is over."""
        user = np.frombuffer(buffer, np.int16)
        bot, self._bot = self._bot[: len(user)], self._bot[len(user) :]
        frames = self._stream.push(np.stack([user, np.pad(bot, (0, len(user) - len(bot)))], axis=1))
        if len(frames["p_b"]):
            silent = not (frames["va_a"][-1] or frames["va_b"][-1])
            self._p_bot = float(frames["p_b"][-1]) if silent else 0.0
        self._triggered |= is_speech
        self._silence_s = 0.0 if is_speech else self._silence_s + len(user) / self.sample_rate
        expected = self._p_bot >= self._params.threshold or self._silence_s >= self._params.stop_secs
        over = self._triggered and not is_speech and expected
        metrics = TurnMetricsData(
            processor=type(self).__name__,
            is_complete=over,
            probability=self._p_bot,
            e2e_processing_time_ms=1000 * self._silence_s,
        )
        if over:
            self.clear()
        self._metrics = metrics
        return EndOfTurnState.COMPLETE if over else EndOfTurnState.INCOMPLETE

    async def analyze_end_of_turn(self) -> tuple[EndOfTurnState, MetricsData | None]:
        """Return what the last audio said, with the probability that the bot speaks next."""
        over = self._metrics is not None and self._metrics.is_complete
        return EndOfTurnState.COMPLETE if over else EndOfTurnState.INCOMPLETE, self._metrics

    def clear(self) -> None:
        """Wait for the user's next turn."""
        self._triggered, self._silence_s, self._metrics = False, 0.0, None
