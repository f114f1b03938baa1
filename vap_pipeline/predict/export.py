"""A trained model as one ONNX file; docs/onnx.md describes its inputs and outputs."""

import logging
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch

from vap_pipeline.audio.rates import HOP_SAMPLES
from vap_pipeline.io.errors import InputError
from vap_pipeline.predict.piece import PieceModel
from vap_pipeline.predict.predictor import Predictor
from vap_pipeline.settings.events import FRAME_RATE_HZ, in_frames

try:
    import onnx
    import onnxscript  # noqa: F401  (torch's exporter needs it)
except ImportError as error:
    raise InputError(f"{error.name} is not installed; pip install 'vap-pipeline[onnx]'") from error

OPSET, IR_VERSION = 18, 8  # of onnx 1.13: onnxruntime reads them from 1.14 on
LONGEST_FRAMES = 50  # of a piece


def export(predictor: Predictor, piece_s: float = 0.02, context_s: float | None = None) -> Any:
    """Return encoder and network as one ONNX model that takes a stream piece by piece.

    Args:
        predictor: the model.
        piece_s: length of a piece, a multiple of 10 ms.
        context_s: length of the model's window.

    Raises:
        InputError: such a piece or context is not possible, or the encoder's recurrent net is not one LSTM.
    """
    context, frames = predictor.context(context_s), in_frames(piece_s)
    if frames / FRAME_RATE_HZ != piece_s or not 1 <= frames <= min(LONGEST_FRAMES, context // 2):
        raise InputError(
            f"pieces of {piece_s:g} s; give a multiple of 0.01 up to {LONGEST_FRAMES / FRAME_RATE_HZ:g} and "
            "to half the context"
        )
    model = PieceModel(predictor.encoder, predictor.network, frames, context).eval()
    state = model.state()
    inputs = {
        "samples": torch.zeros(2, frames * HOP_SAMPLES),
        "va": torch.zeros(frames, 2, dtype=torch.uint8),
        "state": state,
    }
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch about itself, and that torchvision is absent
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        program: Any = torch.onnx.export(
            model,
            kwargs=inputs,
            input_names=["samples", "va", *state],
            output_names=list(model(**inputs)),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    return _described(program.model_proto, predictor, context)


def quantised(model: Any) -> Any:
    """Return the model with weights and the inputs of their products in 8 bits, scaled as they come.

    The first convolution stays as it is: its inputs are samples, and it is small.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    first = next(node.name for node in model.graph.node if node.op_type == "MatMul")
    prepared = onnx.ModelProto()
    prepared.CopyFrom(model)
    # Shapes are known and constants folded already, which its warning asks for.
    prepared.metadata_props.add(key="onnx.quant.pre_process", value="onnxruntime.quant")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "int8.onnx"
        quantize_dynamic(
            prepared,
            path,
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            weight_type=QuantType.QUInt8,  # signed ones overflow on processors without VNNI
            nodes_to_exclude=[first],
        )
        return onnx.load(path)


def _described(model: Any, predictor: Predictor, context: int) -> Any:
    """Add what a user of the file may ask for; remove where the exporter was in our code."""
    for part in (*model.graph.node, *model.graph.value_info, *model.graph.input, *model.graph.output):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    model.graph.ClearField("metadata_props")
    model.ir_version = IR_VERSION
    facts = {
        "model": predictor.network.config.model,
        "context_frames": str(context),
        "backchannel_threshold": f"{predictor.backchannel_threshold:g}",
    }
    onnx.helper.set_model_props(model, facts)
    onnx.checker.check_model(model)
    return model
