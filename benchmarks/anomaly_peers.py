"""The detectors that ``benchmarks/anomalies.py`` compares: fastrnn's with its default options, and six usual ones.

Each takes a series [rows, channels] and gives a score for every row, higher where more unusual, that depends on this
row and those before it alone. Where a detector has to be trained it is trained on the rows so far, anew every 250 rows,
and the first part of a series, which does not count, is the least that it has seen: so none of them is held back
by a training part that ended long ago. Options are ordinary ones, the same for all series, and were not varied. A
missing value is the last one before it, but for fastrnn's, which takes missing values. Of several channels the worst
counts, where a detector looks at one at a time.
"""
import numpy as np

WINDOW = 16             # rows that the forests and the regression see of the past
REFITTED = 250          # rows after which a model is trained anew
SUBSEQUENCE = 32        # rows of the matrix profile's subsequences


def filled(values):
    """The values [rows, channels] with the last one in place of a missing one; 0 before the first."""
    there = ~np.isnan(values)
    last = np.maximum.accumulate(np.where(there, np.arange(len(values))[:, None], 0), 0)
    return np.nan_to_num(np.take_along_axis(values, last, 0))


def windows(values, rows=WINDOW):
    """The last `rows` rows up to each row, [rows - window + 1, window * channels]."""
    return np.lib.stride_tricks.sliding_window_view(values, rows, 0).reshape(len(values) - rows + 1, -1)


def running(values):
    """Mean and standard deviation of all rows before each row; of the first row 0 and 0."""
    count = np.arange(len(values))[:, None]
    sums = np.vstack([np.zeros((1, values.shape[1])), values.cumsum(0)[:-1]])
    mean = sums / np.maximum(count, 1)
    steps = np.vstack([np.zeros((1, values.shape[1])), ((values - mean) * (values - np.vstack(
        [mean[1:], (values.sum(0) / len(values))[None]]))).cumsum(0)[:-1]])            # Welford's sums
    return mean, np.sqrt(np.maximum(steps, 0) / np.maximum(count, 1))


def standing_out(values, mean, deviation):
    """|value - mean| in standard deviations, of the worst channel; 0 where nothing has varied."""
    distance = np.abs(values - mean)
    return np.divide(distance, deviation, out=np.zeros_like(distance), where=deviation > 0).max(1)


HELPERS, OPTIONS = (filled, windows, running, standing_out), (WINDOW, REFITTED, SUBSEQUENCE)     # what scores depend on


# ---- fastrnn --------------------------------------------------------------------------------------

def fastrnn_scores(values, seed=0, **options):
    """(scores, the score above which ``predict`` calls a row an outlier, p < 1e-5); each row is scored, then learnt."""
    from fastrnn.anomaly import RNNAnomalyDetector

    detector = RNNAnomalyDetector(random_state=seed, **options)
    detector.learn_one(values[0].tolist())
    return np.concatenate([[0.0], -detector.score_samples(values[1:])]), -detector.offset_


# ---- Peers ----------------------------------------------------------------------------------------

def differences(values):
    """How far the change to a row is from the mean change so far, in standard deviations of these."""
    change = np.diff(filled(values), axis=0, prepend=filled(values)[:1])
    return standing_out(change, *running(change))


def windowed_gaussian(values, window=6400, step=100):
    """How far a value is from the mean of some 6400 before it, in their standard deviations (NAB's baseline)."""
    x, (mean, deviation) = filled(values), running(filled(values))
    for row in range(window + 1, len(x)):                       # NAB's full window moves on by 100 rows at a time
        begin = (row - window) // step * step
        past = x[begin:begin + window]
        mean[row], deviation[row] = past.mean(0), past.std(0)
    return standing_out(x, mean, deviation)


def isolation_forest(values):
    """scikit-learn's isolation forest of 100 trees on windows of 16 rows, trained anew every 250 rows."""
    from sklearn.ensemble import IsolationForest

    past, scores = windows(filled(values)), np.zeros(len(values))
    for begin in range(50, len(values), REFITTED):
        forest = IsolationForest(random_state=0).fit(past[:begin - WINDOW + 1])
        rows = past[begin - WINDOW + 1:begin + REFITTED - WINDOW + 1]
        scores[begin:begin + REFITTED] = -forest.score_samples(rows)
    return scores


def ridge_regression(values):
    """Errors of a ridge regression of the last 16 rows, trained anew every 250, in their root mean square so far."""
    x = filled(values)
    rows, targets, errors = windows(x[:-1]), x[WINDOW:], np.zeros_like(x)
    for begin in range(50 - WINDOW, len(targets), REFITTED):
        mean, deviation = rows[:begin].mean(0), rows[:begin].std(0)
        scale = np.where(deviation > 0, deviation, 1)
        features, centre = (rows - mean) / scale, targets[:begin].mean(0)
        gram = features[:begin].T @ features[:begin] + np.eye(rows.shape[1])
        weight = np.linalg.solve(gram, features[:begin].T @ (targets[:begin] - centre))
        span = slice(begin, begin + REFITTED)
        errors[WINDOW:][span] = targets[span] - centre - features[span] @ weight
    scored = errors[50:]
    square = np.vstack([np.zeros((1, x.shape[1])), (scored ** 2).cumsum(0)[:-1]])
    size = np.sqrt(square / np.maximum(np.arange(len(scored)), 1)[:, None])
    return np.concatenate([np.zeros(50), standing_out(scored, 0.0, size)])


def half_space_trees(values):
    """river's half-space trees with its defaults, on windows of 16 rows scaled to 0 ... 1 as seen so far."""
    from river.anomaly import HalfSpaceTrees
    from river.preprocessing import MinMaxScaler

    model, scores = MinMaxScaler() | HalfSpaceTrees(seed=0), np.zeros(len(values))
    for row, window in enumerate(windows(filled(values)).tolist(), start=WINDOW - 1):
        features = dict(enumerate(window))
        scores[row] = model.score_one(features)
        model.learn_one(features)
    return scores


def left_matrix_profile(values, length=SUBSEQUENCE, block=256):
    """Distance of the last 32 rows, each stretch scaled, to the nearest earlier one; of the worst channel.

    As stumpy has it: 8 rows at the least lie between the beginnings of two stretches that are compared, and a constant
    stretch is scaled to zeros.
    """
    scores = np.zeros(len(values))
    for x in filled(values).T:
        pieces = np.lib.stride_tricks.sliding_window_view(x, length)
        mean, scale = pieces.mean(1, keepdims=True), pieces.std(1, keepdims=True)
        varies = scale > 1e-12 * (np.abs(mean) + 1e-300)
        z = np.where(varies, (pieces - mean) / np.where(varies, scale, 1), 0.0)
        square = (z * z).sum(1)
        for begin in range(0, len(z), block):
            rows = np.arange(begin, min(begin + block, len(z)))
            distance = square[rows, None] + square[None, :rows[-1] + 1] - 2 * z[rows] @ z[:rows[-1] + 1].T
            distance[np.arange(rows[-1] + 1) > rows[:, None] - length // 4 - 1] = np.inf
            nearest = np.sqrt(np.maximum(distance.min(1), 0))
            at = rows + length - 1                              # the score is that of the last row of a stretch
            scores[at] = np.maximum(scores[at], np.where(np.isfinite(nearest), nearest, 0))
    return scores


PEERS = {"z-score of differences": (differences, "numpy"), "windowed Gaussian": (windowed_gaussian, "numpy"),
         "isolation forest": (isolation_forest, "scikit-learn"), "ridge AR(16)": (ridge_regression, "numpy"),
         "half-space trees": (half_space_trees, "river"), "left matrix profile": (left_matrix_profile, "numpy")}
