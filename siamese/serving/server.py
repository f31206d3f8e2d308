"""The service as a process: a socket, a server that waits for nobody too long, an orderly end."""

from __future__ import annotations

import logging
import socket
import sys
import warnings
from asyncio import Transport

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from siamese.config.using import ServeSettings
from siamese.cropping.face_cutter import FaceCutter, read_cutter
from siamese.errors import UserError
from siamese.files.shown import counted, shown
from siamese.models.inference import Embedder
from siamese.serving.app import make_app
from siamese.serving.service import Service
from siamese.training.interruption import stoppable

_BACKLOG = 256
_PATIENCE = 10.0  # seconds within which the head of a request must be here
_KEEP_ALIVE = 10  # seconds that a connection may lie idle between requests
_LAST = 5  # seconds that running requests have at the end


class _Patient(H11Protocol):
    """Uvicorn's protocol, which by itself waits for the head of a request without an end."""

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._look_again()

    def _look_again(self) -> None:
        self._look = self.loop.call_later(_PATIENCE, self._end_if_silent, self._requests())

    def _requests(self) -> object:
        """Something that is another with each request."""
        return self.cycle

    def _end_if_silent(self, before: object) -> None:
        if self.transport.is_closing():
            return
        answering = self.cycle is not None and not self.cycle.response_complete
        resting = self.timeout_keep_alive_task is not None
        if answering or resting or self._requests() is not before:
            self._look_again()
        else:
            self.transport.close()


def serve(model: Embedder, settings: ServeSettings) -> None:
    """Answer until Ctrl-C or SIGTERM.

    Raises:
        UserError: the address cannot be bound; the gallery is of another model, or damaged; the
            detector cannot be used.
    """
    warnings.filterwarnings("ignore", module="PIL")  # on odd metadata of pictures
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # on every broken form
    with _bound(settings) as listening:
        service = Service(model, settings, _cutter(settings, model.spec.size))
        try:
            people = len(service.keeper.people().result())
            service.warm_up()
            print(_greeting(listening, settings, people), flush=True)
            config = uvicorn.Config(
                make_app(service, settings),
                http=_Patient,
                ws="none",
                lifespan="off",
                log_config=None,
                log_level="error",
                access_log=False,  # which would hold people's names
                proxy_headers=False,  # or anybody could claim to be from any address
                server_header=False,
                limit_concurrency=settings.limits.connections,
                timeout_keep_alive=_KEEP_ALIVE,
                timeout_graceful_shutdown=_LAST,
            )
            with stoppable():
                uvicorn.Server(config).run(sockets=[listening])
        except KeyboardInterrupt:
            print("ended", flush=True)
        finally:
            service.close()


def _cutter(settings: ServeSettings, size: int) -> FaceCutter | None:
    if settings.detector is None:
        return None
    cutter, note = read_cutter(settings.detector, size, settings.margin)
    if note is not None:
        print(f"note: {note}", file=sys.stderr, flush=True)
    return cutter


def _bound(settings: ServeSettings) -> socket.socket:
    """A socket that listens.

    Raises:
        UserError: the port is in use, or the address is not this machine's.
    """
    host, port = settings.host, settings.port
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(
            f"`port` {port}: cannot be bound on {host} ({reason}); give another `port` or `host`"
        ) from None


def _greeting(listening: socket.socket, settings: ServeSettings, people: int) -> str:
    host, port = listening.getsockname()[:2]
    address = f"[{host}]" if ":" in host else host
    return (
        f"http://{address}:{port} answers, with {counted(people, 'person')} in "
        f"{shown(settings.gallery)} (API: /docs); Ctrl-C ends it"
    ).replace("persons", "people")
