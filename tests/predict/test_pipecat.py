"""The turn analyzer inside pipecat's own strategy, and when it says that a turn is over."""

import asyncio

import numpy as np
import pytest

pytest.importorskip("pipecat.audio.turn.base_turn_analyzer", reason="needs the extra [pipecat]")

from pipecat.audio.turn.base_turn_analyzer import EndOfTurnState
from pipecat.frames.frames import (
    InputAudioRawFrame,
    VADUserStartedSpeakingFrame,
    VADUserStoppedSpeakingFrame,
)
from pipecat.turns.user_stop import TurnAnalyzerUserTurnStopStrategy
from pipecat.utils.asyncio.task_manager import TaskManager

from vap_pipeline.encoders import cpc_weights
from vap_pipeline.models.network import ModelConfig, ProjectionModel
from vap_pipeline.predict.pipecat import VapTurnAnalyzer, VapTurnParams
from vap_pipeline.predict.predictor import Predictor

PIECE = np.full(320, 1000, np.int16)  # 20 ms at 16 kHz
COMPLETE, INCOMPLETE = EndOfTurnState.COMPLETE, EndOfTurnState.INCOMPLETE


class Script:
    """A predictor whose stream gives scripted frames (va_a, va_b, p_b), one a piece, or None for none."""

    def __init__(self, *frames):
        self.frames, self.heard, self.rates = list(frames), [], []

    def stream(self, detector, rate):
        self.rates.append(rate)
        return self

    def push(self, samples):
        self.heard.append(samples)
        frame = self.frames.pop(0)
        columns = zip(("va_a", "va_b", "p_b"), frame or (0, 0, 0), strict=True)
        return {name: np.array([value] if frame else []) for name, value in columns}


def states(analyzer, speech):
    return [analyzer.append_audio(PIECE.tobytes(), bool(is_speech)) for is_speech in speech]


def test_a_turn_ends_in_silence_at_the_threshold():
    script = Script((0, 0, 0.9), (1, 0, 0.9), (1, 0, 0.9), (0, 0, 0.6), None, (0, 0, 0.7), (0, 0, 0.9))
    analyzer = VapTurnAnalyzer(script, VapTurnParams(threshold=0.7))
    assert states(analyzer, [0]) == [INCOMPLETE]  # the user has not spoken yet
    assert states(analyzer, [1, 1]) == [INCOMPLETE] * 2 and analyzer.speech_triggered
    assert states(analyzer, [0, 0]) == [INCOMPLETE] * 2  # 0.6, and a piece that completes no frame
    assert asyncio.run(analyzer.analyze_end_of_turn())[0] is INCOMPLETE
    assert states(analyzer, [0]) == [COMPLETE] and not analyzer.speech_triggered
    state, metrics = asyncio.run(analyzer.analyze_end_of_turn())
    assert state is COMPLETE and metrics.is_complete and metrics.probability == 0.7
    assert metrics.e2e_processing_time_ms == pytest.approx(60)  # three pieces of silence
    assert states(analyzer, [0]) == [INCOMPLETE]  # of the next turn nothing was heard


def test_nobody_takes_over_while_the_bot_speaks_until_the_silence_is_long():
    analyzer = VapTurnAnalyzer(Script(*[(1, 0, 0.9)], *[(0, 1, 0.9)] * 3), VapTurnParams(stop_secs=0.06))
    assert states(analyzer, [1, 0, 0, 0]) == [INCOMPLETE, INCOMPLETE, INCOMPLETE, COMPLETE]


def test_the_bot_has_the_second_channel():
    script = Script(*[(0, 0, 0)] * 3)
    analyzer = VapTurnAnalyzer(script)
    analyzer.append_bot_audio(np.arange(400, dtype=np.int16).tobytes())
    states(analyzer, [0, 0, 0])
    heard = np.concatenate(script.heard)
    assert (heard[:, 0] == 1000).all() and (heard[:400, 1] == np.arange(400)).all()
    assert not heard[400:, 1].any()


def test_the_rate_is_the_pipelines_unless_given():
    script = Script()
    VapTurnAnalyzer(script).set_sample_rate(8000)
    fixed = VapTurnAnalyzer(script, sample_rate=24_000)
    fixed.set_sample_rate(8000)
    assert fixed.sample_rate == 24_000 and script.rates == [16_000, 8000, 24_000, 24_000]


def test_in_pipecats_strategy_with_a_model():
    """Random weights, and a threshold that they always reach: the turn ends in the first silence."""
    network = ProjectionModel(ModelConfig(width=32, layers=1, heads=2, feedforward=64)).eval()
    predictor = Predictor("test", network, {}, cpc_weights.load("telephone-small")[0])
    analyzer = VapTurnAnalyzer(predictor, VapTurnParams(threshold=1e-6))
    ended = []

    async def talk():
        strategy = TurnAnalyzerUserTurnStopStrategy(turn_analyzer=analyzer, wait_for_transcript=False)
        strategy.add_event_handler("on_user_turn_stopped", lambda *_: ended.append(len(heard)))
        heard: list[int] = []
        strategy._task_manager = TaskManager()
        audio = InputAudioRawFrame(PIECE.tobytes(), 16_000, 1)
        await strategy.process_frame(VADUserStartedSpeakingFrame())
        for i in range(100):
            if i == 50:
                await strategy.process_frame(VADUserStoppedSpeakingFrame())
            heard.append(i)
            await strategy.process_frame(audio)
            if ended:
                return

    asyncio.run(talk())
    assert ended == [51]
