"""The engine of the benchmark: nginx, answering one constant as fast as anybody can."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from pathlib import Path

ANSWER = (
    '{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"bench","choices":'
    '[{"index":0,"message":{"role":"assistant","content":"Hello there, how are you?"},'
    '"finish_reason":"stop"}],"usage":{"prompt_tokens":9,"completion_tokens":7,"total_tokens":16}}'
)


def nginx_config(folder: Path, port: int, server: str, http: str = "") -> str:
    """Return a whole nginx configuration with one server."""
    # As root, nginx's worker would be somebody who may not write into the folder.
    user = "user root;" if os.geteuid() == 0 else ""
    return f"""
{user} daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_requests 1000000000; keepalive_timeout 600s;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  {http}
  server {{ listen 127.0.0.1:{port} backlog=1024; {server} }}
}}
"""


def write_config(folder: Path, text: str) -> list[str]:
    """Write a configuration and return the command line that serves it."""
    path = folder / "nginx.conf"
    path.write_text(text)
    nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if nginx is None:
        sys.exit("nginx is not installed")
    return [nginx, "-e", str(folder / "error.log"), "-c", str(path)]


def main() -> None:
    """Become nginx on the port that the command line names."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    port = parser.parse_args().port
    folder = Path(tempfile.mkdtemp(prefix="gglib-bench-upstream-"))
    server = f"default_type application/json; location / {{ return 200 '{ANSWER}'; }}"
    command = write_config(folder, nginx_config(folder, port, server))
    os.execv(command[0], command)


if __name__ == "__main__":
    main()
