#!/usr/bin/env bash
# A Ray on this machine for one workspace, stopped by process id:  cluster/local.sh start|stop [WORKSPACE]
# (`emclean up` and `emclean down` do the same together with Label Studio and MLflow.)
set -euo pipefail
root="$(cd "$(dirname "$0")/.." && pwd)"
python="$root/.venv/bin/python"
[ -x "$python" ] || python=python3
exec "$python" -m emclean.distributed.local "$@"
