#!/usr/bin/env python3
"""An S3 server on loopback with one empty bucket. usage: s3_server.py BUCKET

Prints `ready URL` and serves until its standard input closes, so that it never outlives the test that started it.
"""

import sys

from scenario import skip

try:
    import boto3
    from moto.server import ThreadedMotoServer
except ImportError as error:
    skip(f"moto: {error}")

server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
host, port = server.get_host_and_port()
url = f"http://{host}:{port}"
client = boto3.client("s3", endpoint_url=url, aws_access_key_id="test", aws_secret_access_key="test-secret", region_name="us-east-1")
client.create_bucket(Bucket=sys.argv[1])
print(f"ready {url}", flush=True)
sys.stdin.read()
server.stop()
