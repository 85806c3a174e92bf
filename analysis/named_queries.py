"""The questions worth a name, each as SQL over the views of a store. The next one goes here, in order.

A network is judged by the metric of its task: accuracy, bits per byte of text, or else the loss.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class NamedQuery:
    """A query worth a name: `sql` over the views, and what it answers."""

    name: str
    meaning: str
    sql: str


_SETTINGS = "data, model, depth, width, coupling_rule, strategy, compute_dtype, stream_dtype, coupling"

_TRAINING = "learning_rate, batch_size, epochs, steps"
"""How it was trained: settings that differ here are no seeds of one another, so they stand in the answer."""

_GROUP = f"{_SETTINGS}, {_TRAINING}, optimizer, weight_decay, schedule, workers, matmul, examples_train"

_METRICS = ("accuracy", "bits_per_byte", "loss")
"""What tasks are judged by, as `analysis.score` has it, which imports numpy."""

_SCORE = """CASE WHEN task = 'language' OR isfinite(bits_per_byte_val) THEN 'bits_per_byte'
            WHEN task <> 'classification' AND accuracy_val IS NULL THEN 'loss' ELSE 'accuracy' END"""
"""The rule of `analysis.score.score_of`: what a trial is judged by."""

_SCORED = f"""
    SELECT *, {_SCORE} AS score,
           CASE {_SCORE} WHEN 'bits_per_byte' THEN -bits_per_byte_val WHEN 'loss' THEN -loss_val
                ELSE accuracy_val END AS merit,
           regexp_replace(config_json, '"seed": ?[0-9]+', '') AS alike
    FROM trials WHERE outcome = 'ok'"""
"""The trials that ended ok, with a merit that is larger where the score is better, and with what seeds of
one another have in common: every setting but the seed."""

VARIANT = """concat_ws(', ', strategy,
        CASE strategy WHEN 'quantized' THEN nullif(regexp_extract(
            config_json, '"saved_format": ?"([a-z0-9_]+)"', 1), '') END,
        'an input kept every ' || anchor_every || ' units', 'keeping ' || activation_budget,
        'within ' || round(memory_budget_bytes / 1e6, 3) || ' MB',
        CASE WHEN accumulate > 1 THEN 'in ' || accumulate || ' parts' END)"""
"""A strategy with its settings, and what it is combined with."""

STEP = """family, model, data, depth, width, context_length, batch_size, compute_dtype, stream_dtype,
    coupling, coupling_rule, optimizer, workers, device, memory_source"""
"""What two training steps have in common whose memory and time may be compared."""

TIMED = "outcome = 'ok' AND memory_peak_bytes IS NOT NULL AND isfinite(step_time_s)"
"""The trials whose memory and time are known."""


def _of(table: str, names: str) -> str:
    return ", ".join(f"{table}.{name}" for name in names.split(", "))


def _averages(split: str) -> str:
    """The mean of each metric of a split that tasks are judged by, under its own name."""
    return ",\n       ".join(f"avg({m}_{split}) AS {m}_{split}" for m in _METRICS)


def _spreads(split: str) -> str:
    """Mean, deviation and ends of each metric of a split that tasks are judged by."""
    columns = (f"{m}_{split}" for m in _METRICS)
    return ",\n       ".join(
        f"avg({c}) AS {c}, stddev_samp({c}) AS {c}_std, min({c}) AS {c}_min, max({c}) AS {c}_max"
        for c in columns
    )


_QUERIES = (
    NamedQuery(
        name="best",
        meaning="the settings with the best validation accuracy, bits per byte or loss, whichever the task "
        "is judged by, seeds averaged, at most 20 of each",
        sql=f"""
SELECT {_SETTINGS}, context_length, {_TRAINING},
       count(DISTINCT seed) AS seeds,
       score,
       {_averages("val")},
       {_averages("test")},
       avg(tokens_seen) AS tokens_seen,
       max(memory_peak_bytes) AS memory_peak_bytes,
       median(step_time_s) AS step_time_s
FROM ({_SCORED})
WHERE isfinite(merit)
GROUP BY {_GROUP}, context_length, score, alike
QUALIFY row_number() OVER (PARTITION BY score ORDER BY avg(merit) DESC, max(memory_peak_bytes)) <= 20
ORDER BY score, avg(merit) DESC, memory_peak_bytes, model, depth, width, strategy, compute_dtype,
         learning_rate""",
    ),
    NamedQuery(
        name="blocks",
        meaning="where along the network the error of reversing is largest, in the last probe of each trial",
        sql="""
SELECT t.model, t.depth, t.coupling_rule, t.compute_dtype, t.stream_dtype, b.block, b.name,
       count(*) AS trials,
       median(b.reconstruction_rel_error) AS reconstruction_rel_error,
       median(b.gradient_rel_error) AS gradient_rel_error,
       max(b.gradient_angle_deg) AS gradient_angle_deg_worst
FROM blocks b
JOIN (SELECT trial_id, max(epoch) AS epoch FROM blocks GROUP BY trial_id) last USING (trial_id, epoch)
JOIN trials t USING (trial_id)
GROUP BY ALL
ORDER BY ALL""",
    ),
    NamedQuery(
        name="convergence",
        meaning="evaluations until the validation score is near the trial's best, seeds averaged: within one "
        "point of accuracy, or 0.01 of bits per byte or loss",
        sql=f"""
WITH scored AS ({_SCORED}),
curves AS (
    SELECT e.trial_id, e.epoch, e.accuracy_val, e.bits_per_byte_val, e.loss_val,
           CASE s.score WHEN 'bits_per_byte' THEN -e.bits_per_byte_val WHEN 'loss' THEN -e.loss_val
                ELSE e.accuracy_val END AS merit
    FROM epochs e JOIN scored s USING (trial_id)
)
SELECT {_of("t", _SETTINGS)}, t.context_length, {_of("t", _TRAINING)},
       count(*) AS trials,
       avg(c.epochs_needed) AS epochs_needed,
       t.score,
       avg(c.accuracy_val_best) AS accuracy_val_best,
       avg(c.bits_per_byte_val_best) AS bits_per_byte_val_best,
       avg(c.loss_val_best) AS loss_val_best
FROM (
    SELECT trial_id, min(epoch) FILTER (merit >= best - 0.01) AS epochs_needed,
           max(accuracy_val) AS accuracy_val_best,
           min(bits_per_byte_val) AS bits_per_byte_val_best,
           min(loss_val) AS loss_val_best
    FROM (SELECT *, max(merit) OVER (PARTITION BY trial_id) AS best FROM curves WHERE isfinite(merit))
    GROUP BY trial_id
) c JOIN scored t USING (trial_id)
GROUP BY {_of("t", _GROUP)}, t.context_length, t.score, t.alike
ORDER BY t.score, epochs_needed, model, depth, width, strategy, compute_dtype, stream_dtype, coupling,
         data""",
    ),
    NamedQuery(
        name="couplings",
        meaning="how errors grow while activations are rebuilt, by coupling and depth: as predicted from its "
        "numbers alone, and as measured in a trial's first probe from the pair rebuilt first to the last",
        sql="""
SELECT coalesce(t.coupling_rule, 'additive') AS coupling_rule, t.model, t.depth, t.width, t.compute_dtype,
       t.stream_dtype, t.coupling, t.anchor_every,
       count(*) AS trials,
       median(t.coupling_growth_predicted) AS growth_predicted,
       median(e.last / nullif(e.first, 0)) AS growth_measured,
       median(e.first) AS error_first,
       median(e.last) AS error_last,
       median(e.gradient) AS gradient_rel_error
FROM (
    SELECT trial_id, arg_max(reconstruction_rel_error, block) AS first,
           arg_min(reconstruction_rel_error, block) AS last, max(gradient_rel_error) AS gradient
    FROM (SELECT * FROM blocks WHERE reconstruction_rel_error IS NOT NULL
          QUALIFY epoch = min(epoch) OVER (PARTITION BY trial_id))
    GROUP BY trial_id
) e JOIN trials t USING (trial_id)
GROUP BY ALL
ORDER BY t.model, t.width, t.compute_dtype, t.stream_dtype, t.coupling, coupling_rule, t.depth""",
    ),
    NamedQuery(
        name="drift",
        meaning="how the error of reversing changes from the first probed epoch of a trial to its last",
        sql="""
SELECT t.model, t.depth, t.coupling_rule, t.compute_dtype, t.stream_dtype,
       count(*) AS trials,
       median(e.first) AS reconstruction_rel_error_first,
       median(e.last) AS reconstruction_rel_error_last,
       median(e.last / nullif(e.first, 0)) AS growth
FROM (
    SELECT trial_id, arg_min(reconstruction_rel_error, epoch) AS first,
           arg_max(reconstruction_rel_error, epoch) AS last
    FROM epochs WHERE reconstruction_rel_error IS NOT NULL
    GROUP BY trial_id HAVING count(*) > 1
) e JOIN trials t USING (trial_id)
GROUP BY ALL
ORDER BY ALL""",
    ),
    NamedQuery(
        name="failures",
        meaning="what did not end ok: how, where and why",
        sql="""
SELECT outcome, error_class, model, depth, width, strategy, compute_dtype,
       count(*) AS trials,
       min(error_message) AS error_message,
       min(trial_id) AS example_trial_id
FROM trials
WHERE outcome IS DISTINCT FROM 'ok'
GROUP BY ALL
ORDER BY trials DESC, outcome, error_class, model, depth, width, strategy, compute_dtype""",
    ),
    NamedQuery(
        name="memory",
        meaning="activation and peak memory of a training step by strategy and depth",
        sql="""
SELECT family, block, width, compute_dtype, stream_dtype, batch_size, memory_source, strategy, depth,
       count(*) AS trials,
       max(memory_activation_bytes) AS memory_activation_bytes,
       max(memory_peak_bytes) AS memory_peak_bytes,
       max(parameters) AS parameters
FROM trials
WHERE outcome = 'ok' AND memory_activation_bytes IS NOT NULL
GROUP BY ALL
ORDER BY ALL""",
    ),
    NamedQuery(
        name="pareto",
        meaning="trials that no other on the same data beats in peak memory and in what the task is judged "
        "by (validation accuracy, bits per byte or loss) at once; test results took no part in the choice",
        sql=f"""
SELECT trial_id, {_SETTINGS}, context_length, seed, score, accuracy_val, accuracy_test, bits_per_byte_val,
       bits_per_byte_test, loss_val, memory_peak_bytes, reconstruction_rel_error
FROM ({_SCORED})
WHERE isfinite(merit) AND memory_peak_bytes IS NOT NULL
QUALIFY merit = max(merit) OVER (PARTITION BY data, score, memory_peak_bytes)
    AND merit > coalesce(max(merit) OVER (
        PARTITION BY data, score ORDER BY memory_peak_bytes
        GROUPS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
    ), '-infinity')
ORDER BY data, memory_peak_bytes, trial_id""",
    ),
    NamedQuery(
        name="precision",
        meaning="test accuracy, bits per byte or loss, and the error of reversing, by precision",
        sql=f"""
SELECT compute_dtype, stream_dtype, coupling, coupling_rule, strategy,
       count(*) AS trials,
       {_averages("test")},
       median(reconstruction_rel_error) AS reconstruction_rel_error,
       max(reconstruction_rel_error) AS reconstruction_rel_error_worst,
       median(gradient_rel_error) AS gradient_rel_error,
       max(gradient_angle_deg) AS gradient_angle_deg_worst
FROM trials
WHERE outcome = 'ok'
GROUP BY ALL
ORDER BY ALL""",
    ),
    NamedQuery(
        name="seeds",
        meaning="how far the test score spreads over seeds: settings run with more than one seed",
        sql=f"""
SELECT {_SETTINGS}, context_length, {_TRAINING},
       count(DISTINCT seed) AS seeds,
       score,
       {_spreads("test")}
FROM ({_SCORED})
WHERE isfinite(CASE score WHEN 'bits_per_byte' THEN bits_per_byte_test WHEN 'loss' THEN loss_test
               ELSE accuracy_test END)
GROUP BY {_GROUP}, context_length, score, alike
HAVING count(DISTINCT seed) > 1
ORDER BY seeds DESC, score, accuracy_test DESC, loss_test, model, depth, width, strategy, compute_dtype""",
    ),
    NamedQuery(
        name="strategies",
        meaning="peak memory, time and score of each strategy and combination on the same network, data and "
        "machine; whether it is on the front of memory and time, and what on the front dominates it",
        sql=f"""
WITH variants AS (
    SELECT {STEP},
           {VARIANT} AS strategy,
           count(*) AS trials,
           max(memory_peak_bytes) AS memory_peak_bytes,
           max(memory_activation_bytes) AS memory_activation_bytes,
           median(step_time_s) AS step_time_s,
           {_averages("val")},
           max(concurrent_trials) AS concurrent_trials
    FROM trials
    WHERE {TIMED}
    GROUP BY ALL
),
placed AS (SELECT *, dense_rank() OVER (ORDER BY {STEP}) AS place FROM variants),
judged AS (
    SELECT v.place, v.strategy,
           arg_min(o.strategy, (o.memory_peak_bytes * o.step_time_s, o.strategy)) AS dominated_by
    FROM placed v JOIN placed o
      ON v.place = o.place AND o.memory_peak_bytes <= v.memory_peak_bytes AND o.step_time_s <= v.step_time_s
     AND (o.memory_peak_bytes < v.memory_peak_bytes OR o.step_time_s < v.step_time_s)
    GROUP BY ALL
)
SELECT p.* EXCLUDE (place), j.dominated_by IS NULL AS on_front, j.dominated_by
FROM placed p LEFT JOIN judged j USING (place, strategy)
ORDER BY p.place, memory_peak_bytes, step_time_s, p.strategy""",
    ),
    NamedQuery(
        name="studies",
        meaning="the studies of the store: trials, outcomes, time",
        sql="""
SELECT study,
       count(*) AS trials,
       count(*) FILTER (WHERE outcome = 'ok') AS ok,
       count(*) FILTER (WHERE outcome IS DISTINCT FROM 'ok') AS not_ok,
       sum(wall_s) AS wall_s,
       min(started_at) AS started_at,
       max(finished_at) AS finished_at
FROM trials
GROUP BY study
ORDER BY study""",
    ),
    NamedQuery(
        name="time",
        meaning="time of a training step by strategy, with what else may have shared the machine",
        sql="""
SELECT device, model, depth, width, compute_dtype, batch_size, strategy,
       count(*) AS trials,
       median(step_time_s) AS step_time_s,
       median(examples_per_s) AS examples_per_s,
       max(concurrent_trials) AS concurrent_trials
FROM trials
WHERE outcome = 'ok' AND step_time_s IS NOT NULL
GROUP BY ALL
ORDER BY ALL""",
    ),
)
NAMED = {query.name: query for query in _QUERIES}
