"""Search on the embedded sample for a Jetson Nano, choose a trial and export it: minutes on two cores."""

import farsearch

price = farsearch.estimate("jetson-nano", "minilm", batch_size=8, frozen_fraction=0.9)
print(f"a step of FAR: {price.peak_memory_mib:,.0f} MiB, {price.wall_time_s:.1f} s on the device")

study = farsearch.search(
    device="jetson-nano",
    task="reviews",
    model="minilm",
    epochs=3,
    n_trials=6,
    study="quickstart",
)
best = study.choose(within="noise")
print(best.reason)
print("bundle:", study.export(best, "bundle/").bundle.path)
