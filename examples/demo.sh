#!/usr/bin/env bash
# A molecule with an arm on a hinge: 3,000 noisy images of it, its motion found again and judged against the truth.
# usage: examples/demo.sh [FOLDER]   (`make demo` sets up and calls this; some minutes on two cores)
set -euo pipefail

out=${1:-demo}
rm -rf "$out/data" "$out/run" "$out/consensus" "$out/fsc"
mkdir -p "$out"

run() {
    printf '\n$ cryorecon %s\n' "$*"
    cryorecon "$@"
}

run simulate --motion hinge --states 20 -n 3000 -D 64 --apix 3 --snr 0.1 -o "$out/data"

known=("$out/data/particles.mrcs" --poses "$out/data/poses.pkl" --ctf "$out/data/ctf.pkl")
run train_vae "${known[@]}" --zdim 4 -n 1 -o "$out/run"
run analyze "$out/run" --ksample 8
run eval_conformation "$out/run" --truth "$out/data/truth.npz" -n 20 -k 20

# what one map for all of them would have been, and how far its halves agree
run backproject "${known[@]}" -o "$out/consensus"
run eval_fsc "$out/consensus/half_map_a.mrc" "$out/consensus/half_map_b.mrc" -o "$out/fsc"

printf '\nDone in %d s. Open %s in a browser. All pictures and pages:\n' "$SECONDS" "$out/run/analyze.1/report.html"
find "$out" \( -name '*.png' -o -name '*.html' \) | sort | sed 's/^/  /'
