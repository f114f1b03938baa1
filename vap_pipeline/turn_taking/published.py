"""Table 1 of the paper (Ekstedt & Skantze 2022): its columns and its values."""

# Columns of Table 1: its name and its score; brackets are the shift class's own F1.
COLUMNS = {
    "S/H": "f1_hold_shift",
    "(shift)": "f1_shift",
    "S/L": "f1_short_long",
    "S-pred": "f1_predict_shift",
    "BC-pred": "f1_predict_backchannel",
}
TASK_COLUMNS = {name: metric for name, metric in COLUMNS.items() if metric != "f1_shift"}
# For --help: wrapped by hand, because it stands in texts that argparse leaves as they are.
NAMES_IN_FILES = """\
names   S/H is f1_hold_shift in files, S/L f1_short_long, S-pred f1_predict_shift, BC-pred
        f1_predict_backchannel, and the F1 of shifts alone f1_shift"""
MAJORITY = "majority class"
# Ekstedt & Skantze 2022, Table 1: Switchboard, means over 11 folds, in the order of COLUMNS.
PUBLISHED: dict[str, tuple[float | None, ...]] = {
    "discrete": (0.899, 0.510, 0.786, 0.733, 0.723),
    "independent": (0.897, 0.486, 0.786, 0.718, 0.685),
    "independent-40": (0.896, 0.483, 0.778, 0.712, 0.661),
    "comparative": (0.893, 0.475, 0.546, 0.714, None),
    MAJORITY: (0.843, 0.0, 0.565, 0.333, 0.333),
}
