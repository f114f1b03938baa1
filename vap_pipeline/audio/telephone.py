"""The telephone: 8 kHz, a band from 200 to 3,400 Hz, mu-law."""

import numpy as np
from scipy import signal

RATE_HZ = 8000
BAND_HZ = (200, 3400)
_BAND = signal.butter(2, BAND_HZ, "bandpass", fs=RATE_HZ, output="sos")


def band_pass(samples: np.ndarray) -> np.ndarray:
    """Return samples (samples, …) at 8 kHz as they pass the telephone band."""
    return signal.sosfilt(_BAND, samples, axis=0)
