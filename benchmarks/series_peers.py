"""What ``benchmarks/series.py`` sets beside fastrnn's forecasts: naive ones, statsforecast's and neuralforecast's.

statsforecast forecasts each series alone: AutoETS and AutoTheta, which choose their forms by themselves. AutoETS takes
seasons up to 24; with a longer one the series is first deseasonalised by its own MSTL, as its documentation has it.
neuralforecast trains one network a panel: LSTM and NHITS with the package's sizes and its 1,000 updates, the series
scaled (its `scaler_type="standard"`), the input of the longer of two horizons and two seasons.

Peers' forecasts do not change with fastrnn: with a folder as cache they are made once and read from there afterwards,
with the seconds that they took then.
"""
import contextlib
import hashlib
import json
import logging
import os
import time
import warnings

import numpy as np

LEVELS = (50, 80, 95)           # per cent of the values that an interval is to hold
PEERS = ("seasonal naive", "AutoETS", "AutoTheta")
NEURAL = ("LSTM", "NHITS")


def seasonal_naive(past, horizon, season):
    """The last season again and again; the first value for what lies before the series."""
    ahead = np.arange(horizon)
    return past[np.maximum(len(past) + ahead - season * (ahead // season + 1), 0)]


def statistical_model(name, season):
    """A model of statsforecast, made for series of a season."""
    from statsforecast.models import MSTL, AutoETS, AutoTheta
    if name == "AutoTheta":
        return AutoTheta(season_length=season)
    if season > 24:
        return MSTL(season_length=season, trend_forecaster=AutoETS(model="ZZN"))
    return AutoETS(season_length=season)


def statistical_forecast(name, past, horizon, season):
    """Point forecasts [h], intervals [levels, 2, h], and whether the model failed and naive forecasts stand for it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = statistical_model(name, season).forecast(y=past, h=horizon, level=list(LEVELS))
        point = np.asarray(result["mean"], np.float64)
        intervals = np.array([[result[f"lo-{level}"], result[f"hi-{level}"]] for level in LEVELS], np.float64)
        if np.isfinite(point).all():
            return point, intervals, False
    except Exception as error:          # whatever a model says of a series that it cannot take
        logging.getLogger(__name__).debug("%s: %s", name, error)
    point = seasonal_naive(past, horizon, season)
    return point, np.full((len(LEVELS), 2, horizon), np.nan), True


def statistical(name, pasts, horizon, season):
    """Forecasts of every series of every origin: {"point" [O, N, h], "intervals" [O, N, L, 2, h], "failed", "cpu"}."""
    began = time.process_time()
    results = [[statistical_forecast(name, past, horizon, season) for past in of_origin] for of_origin in pasts]
    return {"point": np.array([[point for point, _, _ in row] for row in results]),
            "intervals": np.array([[intervals for _, intervals, _ in row] for row in results]),
            "failed": sum(failed for row in results for _, _, failed in row), "cpu": time.process_time() - began}


def neural(name, pasts, horizon, season, seed):
    """The same of a network of neuralforecast, trained at each origin; no intervals."""
    import pandas as pd
    os.environ.setdefault("NIXTLA_ID_AS_COL", "1")
    for logger in ("pytorch_lightning", "lightning_fabric", "lightning.pytorch"):
        logging.getLogger(logger).setLevel(logging.ERROR)
    from neuralforecast import NeuralForecast
    from neuralforecast.models import LSTM, NHITS
    began, points = time.process_time(), []
    for of_origin in pasts:
        frame = pd.concat([pd.DataFrame({"unique_id": f"{n:04}", "ds": np.arange(len(past)), "y": past})
                           for n, past in enumerate(of_origin)], ignore_index=True)
        model = {"LSTM": LSTM, "NHITS": NHITS}[name](
            h=horizon, input_size=2 * max(horizon, season), max_steps=1000, scaler_type="standard", random_seed=seed,
            start_padding_enabled=True, accelerator="cpu", enable_progress_bar=False, logger=False,
            enable_checkpointing=False, enable_model_summary=False)
        with warnings.catch_warnings(), contextlib.redirect_stdout(None):
            warnings.simplefilter("ignore")
            network = NeuralForecast(models=[model], freq=1)
            network.fit(frame)
            forecasts = network.predict()
        points.append(forecasts.sort_values(["unique_id", "ds"])[name].to_numpy(np.float64).reshape(-1, horizon))
    return {"point": np.array(points), "intervals": None, "failed": 0, "cpu": time.process_time() - began}


def cached(folder, name, pasts, horizon, season, make):
    """What make() gives, or what it gave before for the same series, if a folder is given."""
    if folder is None:
        return make()
    content = hashlib.sha256(b"".join(past.tobytes() for of_origin in pasts for past in of_origin))
    content.update(json.dumps([name, horizon, season]).encode())
    path = folder / f"{name.replace(' ', '-')}-{content.hexdigest()[:16]}.json"
    if not path.exists():
        result = make()
        folder.mkdir(parents=True, exist_ok=True)
        as_lists = {key: value.tolist() if isinstance(value, np.ndarray) else value for key, value in result.items()}
        path.write_text(json.dumps(as_lists))
    result = json.loads(path.read_text())
    return {key: np.array(value, np.float64) if isinstance(value, list) else value for key, value in result.items()}


def peer_forecasts(name, pasts, horizon, season, *, seed=0, folder=None):
    """Forecasts of a peer, by name, for the pasts [origins][series]."""
    if name == "seasonal naive":
        return {"point": np.array([[seasonal_naive(past, horizon, season) for past in row] for row in pasts]),
                "intervals": None, "failed": 0, "cpu": 0.0}
    if name in NEURAL:
        return cached(folder, f"{name} {seed}", pasts, horizon, season,
                      lambda: neural(name, pasts, horizon, season, seed))
    return cached(folder, name, pasts, horizon, season, lambda: statistical(name, pasts, horizon, season))
