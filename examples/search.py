"""Search on the embedded sample, then choose, export, verify and report: a few minutes on two cores."""

import farsearch

study = farsearch.search(
    device="jetson-nano", task="reviews", model="minilm", train_samples=64, max_length=32, n_trials=4, study="demo"
)
print(study)

table = study.trials_dataframe()
print(table[["metric", "peak_memory_mib", "wall_time_s", "mean_frozen", "on_front"]].round(2))
print("front:", [trial.number for trial in study.front])
study.plot_front().savefig("front.png")

best = study.choose(within=0.5)
print(best.reason)
study.export(best, "bundle/")

study = farsearch.open_study("demo")
study.resume(n_trials=1)
for verdict in study.verify([best.trial.number], seeds=3, train_samples=64, baselines="none"):
    print(f"{verdict.title}: {verdict.mean:.2f} over seeds {', '.join(map(str, verdict.scores))}")
print(study.report("report.html").page)
