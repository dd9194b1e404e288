#!/usr/bin/env bash
# Installs the browser of the Swagger UI test where it can; where it cannot, says so, and the test is skipped.
set -u

if command -v chromium >/dev/null; then
  exit 0
fi
if ! command -v apt-get >/dev/null; then
  echo "No chromium, and no apt-get to install it with: the browser tests will be skipped."
  exit 0
fi
if [ "$(id -u)" -ne 0 ]; then
  echo "No chromium: the browser tests will be skipped. To run them: sudo apt-get install chromium"
  exit 0
fi
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if timeout 300 sh -c 'apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends chromium' \
  >"$log" 2>&1; then
  echo "Installed $(chromium --version 2>/dev/null)."
else
  tail -n 3 "$log"
  echo "chromium could not be installed: the browser tests will be skipped."
fi
exit 0
