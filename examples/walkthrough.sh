#!/usr/bin/env bash
# One job with nothing but curl: walkthrough.sh MODEL.onnx DATASET FOLDER. The service is at $ESPALIER_URL; where it
# asks for keys, one is in $ESPALIER_API_KEY, which curl reads from a file, so that no list of processes shows it.
set -euo pipefail
api=${ESPALIER_URL:-http://127.0.0.1:8000}/v1
if [ -n "${ESPALIER_API_KEY:-}" ]; then
  curl() { command curl -K <(printf 'header = "Authorization: Bearer %s"\n' "$ESPALIER_API_KEY") "$@"; }
fi
model_file=$1 dataset_file=$2 folder=$3

field() { python3 -c 'import json, sys; print(json.load(sys.stdin)[sys.argv[1]])' "$1"; }

ready() { # resource, id
  while state=$(curl -fsS "$api/$1/$2" | field state); [ "$state" = inspecting ]; do sleep 0.5; done
  [ "$state" = ready ] || { curl -sS "$api/$1/$2"; exit 1; }
}

# 1. Send both files; the answers carry their ids.
model=$(curl -fsS -T "$model_file" "$api/models/my-model" | field id)
dataset=$(curl -fsS -T "$dataset_file" "$api/datasets/my-data" | field id)

# 2. Wait until both have been inspected.
ready models "$model"
ready datasets "$dataset"

# 3. Start the job.
job=$(curl -fsS "$api/jobs" -H 'Content-Type: application/json' -d '{
  "model_id": "'"$model"'", "dataset_id": "'"$dataset"'",
  "budget": {"macs_ratio": 0.4}, "finetuning": {"epochs": 2, "learning_rate": 0.02}
}' | field id)

# 4. Follow it: the stream ends with the job.
curl -fsSN "$api/jobs/$job/events"

# 5. Fetch what it made.
mkdir -p "$folder"
curl -fsS "$api/jobs/$job/report" -o "$folder/report.json"
curl -fsS "$api/jobs/$job/report.html" -o "$folder/report.html"
curl -fsS "$api/jobs/$job/artifacts/pruned.onnx" -o "$folder/pruned.onnx"
