"""Sample rates, and the longest recording that is believed."""

SAMPLE_RATE_HZ = 16_000  # of what encoders are given
HOP_SAMPLES = 160  # of that audio, a frame of 10 ms
LONGEST_S = 24 * 3600.0  # a longer recording is a broken header, or a number in the wrong unit
