"""The service from Python: upload, prune, follow, fetch.

with Client("http://127.0.0.1:8000") as espalier:
    model = espalier.wait_until_ready(espalier.upload_model(Path("model.onnx")))
    job = espalier.create_job(JobSpec(model_id=model.id, budget=Budget(macs_ratio=0.5)))
    for event in espalier.events(job.id):
        print(event.type, event.data)
    espalier.download(job.id, "pruned.onnx", Path("pruned.onnx"))

AsyncClient has the same methods, to be awaited, and `async for` over its lists and events. The modules under
`synchronous` are made from those under `asynchronous` by `make client`; what both need lies beside them.
"""

from espalier.client.asynchronous.client import AsyncClient
from espalier.client.exchange import DEFAULT_URL
from espalier.client.files import Progress
from espalier.client.synchronous.client import Client

__all__ = ["DEFAULT_URL", "AsyncClient", "Client", "Progress"]
