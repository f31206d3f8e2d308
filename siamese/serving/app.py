"""The service's addresses: what each takes and answers, and how a refusal reads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from starlette.convertors import StringConvertor, register_url_convertor
from starlette.exceptions import HTTPException as StarletteHTTPException

from siamese import __version__
from siamese.config.using import ServeSettings
from siamese.files.shown import shown
from siamese.serving.answers import (
    Enrolled,
    Forgotten,
    Health,
    Identified,
    Known,
    Model,
    Refusal,
    Verified,
)
from siamese.serving.front_page import docs_page, front_page
from siamese.serving.guard import Guard
from siamese.serving.service import Service

Prior = Annotated[
    float, Query(gt=0, lt=1, description="probability of one person before the comparison")
]
Pictures = Annotated[bool, Query(description="answer what the network sees, too")]
Top = Annotated[int, Query(ge=1, le=100, description="most people that are named")]

_REASONS = {
    400: "The address or the form is malformed.",
    401: "The token is missing or wrong.",
    403: "Asked by a page from elsewhere.",
    404: "Nobody of that name is enrolled.",
    408: "The request did not arrive in time.",
    413: "The request or a picture is too large.",
    415: "No multipart form.",
    421: "Asked for another host than this machine.",
    422: "A picture cannot be decoded, or a value is out of its range.",
    429: "Too many requests; Retry-After says when to ask again.",
    500: "A fault of the service.",
    503: "Too much at once, or the gallery cannot be used; ask again later.",
}
_ALWAYS = (400, 403, 421, 429, 500, 503)
_OF_FORMS = (408, 413, 415, 422)


class _Text(StringConvertor):
    """A name in an address, which may hold anything: slashes and line ends, too."""

    regex = "(?s:.*)"


register_url_convertor("text", _Text())


def make_app(service: Service, settings: ServeSettings) -> FastAPI:
    """The application; it can be served by any ASGI server, or called by tests."""
    app = FastAPI(
        title="siamese",
        version=__version__,
        description="Are these the same person, and who is this?",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    with_token = settings.token is not None
    app.include_router(_routes(service, with_token))
    if with_token:
        _require_bearer(app)
    _add_pages(app)
    app.add_exception_handler(StarletteHTTPException, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(Exception, _failed)
    app.add_middleware(Guard, settings=settings)
    return app


def _routes(service: Service, with_token: bool) -> APIRouter:
    router = APIRouter()
    most = service.settings.limits.pictures

    def told(*more: int) -> dict[int | str, dict[str, Any]]:
        codes = sorted({*_ALWAYS, *more, *((401,) if with_token else ())})
        return {code: {"model": Refusal, "description": _REASONS[code]} for code in codes}

    @router.post(
        "/verify", responses=told(*_OF_FORMS), openapi_extra=_form(a=1, b=1), tags=["pictures"]
    )
    async def verify(request: Request, prior: Prior = 0.5, pictures: Pictures = False) -> Verified:
        """Do two pictures show one person?"""
        return await service.verify(request, prior, pictures)

    @router.post(
        "/identify", responses=told(*_OF_FORMS), openapi_extra=_form(picture=1), tags=["pictures"]
    )
    async def identify(
        request: Request, top: Top = 5, prior: Prior = 0.5, pictures: Pictures = False
    ) -> Identified:
        """Who is on a picture?"""
        return await service.identify(request, top, prior, pictures)

    @router.put(
        "/people/{name:text}",
        responses=told(*_OF_FORMS),
        openapi_extra=_form(pictures=most),
        tags=["people"],
    )
    async def enroll(request: Request, name: str) -> Enrolled:
        """Enrol pictures of a person: all of them or none."""
        return await service.enroll(request, name)

    @router.delete("/people/{name:text}", responses=told(404, 422), tags=["people"])
    async def forget(name: str) -> Forgotten:
        """Remove a person and all that is stored about them."""
        return await service.forget(name)

    @router.get("/people", responses=told(), tags=["people"])
    async def people() -> list[Known]:
        """Who is enrolled?"""
        return await service.people()

    @router.get("/model", responses=told(), tags=["service"])
    async def model_() -> Model:
        """The model, its threshold and the scores that it was chosen on."""
        return service.describe()

    @router.get("/health", responses=told(), tags=["service"])
    async def health() -> Health:
        """Does the service work, and with which model?"""
        return await service.health()

    return router


def _form(**parts: int) -> dict[str, Any]:
    """How OpenAPI describes a form of files: name of each part, and how many there may be."""
    file = {"type": "string", "format": "binary"}
    properties = {
        name: file
        if most == 1
        else {"type": "array", "items": file, "minItems": 1, "maxItems": most}
        for name, most in parts.items()
    }
    schema = {
        "type": "object",
        "properties": properties,
        "required": list(parts),
        "additionalProperties": False,
    }
    return {
        "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}
    }


def _require_bearer(app: FastAPI) -> None:
    """Say in OpenAPI what :class:`Guard` demands."""
    described: Callable[[], dict[str, Any]] = app.openapi

    def openapi() -> dict[str, Any]:
        schema = described()
        schema.setdefault("components", {})["securitySchemes"] = {
            "token": {"type": "http", "scheme": "bearer"}
        }
        schema["security"] = [{"token": []}]
        return schema

    app.openapi = openapi  # type: ignore[method-assign]


def _add_pages(app: FastAPI) -> None:
    front, framed = front_page(), {"Content-Security-Policy": "frame-ancestors 'none'"}

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return HTMLResponse(front, headers=framed)

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return HTMLResponse(docs_page(app.openapi()), headers=framed)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, StarletteHTTPException)
    detail = shown(str(error.detail))
    return JSONResponse({"detail": detail}, error.status_code, headers=dict(error.headers or {}))


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"][1:]))
    return JSONResponse({"detail": shown(f"{where}: {first['msg']}")}, 422)


async def _failed(request: Request, error: Exception) -> Response:
    """The traceback goes to the service's own output (by the server), nothing of it from here."""
    return JSONResponse({"detail": "a fault of the service; its own output says more"}, 500)
