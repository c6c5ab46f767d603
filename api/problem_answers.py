"""Refusals and failures as HTTP answers: problem+json for programs, a short page for people.

Status and code come from the one table in ``problems.py``. No answer shows SQL, a path or a traceback.
"""

import logging
from http import HTTPStatus

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from api import pages
from api.hanging_up import caller_of
from api.negotiation import prefers_html
from api.problems import outcome_of, problem
from detection.errors import UrbanInventoryError

MEDIA_TYPE = "application/problem+json"
_LOG = logging.getLogger("urban_inventory")
_RETRY_AFTER_S = "5"


def add_handlers(app: FastAPI) -> None:
    """Lets the application answer every refusal in this form."""
    app.add_exception_handler(UrbanInventoryError, _of_our_tree)
    app.add_exception_handler(RequestValidationError, _of_parameters)
    app.add_exception_handler(HTTPException, _of_framework)


def refusal(
    status: int, code: str, what: str, *, trace: str, where: str | None = None, do: str | None = None
) -> Response:
    """A problem+json answer (RFC 9457) with our four words beside the standard's."""
    said = f"{where}: {what}" if where else what
    body = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": f"{said.rstrip('.')}. {do}" if do else said,
        "code": code,
        "what": what,
        "where": where,
        "do": do,
        "trace": trace,
    }
    headers = {"Retry-After": _RETRY_AFTER_S} if status in (429, 503) else {}
    return Response(orjson.dumps(body), status_code=status, media_type=MEDIA_TYPE, headers=headers)


def last_resort(trace: str) -> Response:
    """What anybody is told of a failure that nothing foresaw."""
    return refusal(
        500,
        "internal_error",
        "something failed that should not",
        trace=trace,
        do=f"Tell the operator the number {trace}; the log says more.",
    )


def host_refused(trace: str) -> Response:
    """The answer to a Host header that is none of ours."""
    return refusal(421, "host_unknown", "this service has another name", trace=trace)


def unreadable_address(trace: str) -> Response:
    """The answer to an address with signs in it that nothing here is called by."""
    return refusal(
        400, "bad_request", "the address has a control character in it", trace=trace, do="Leave it out."
    )


def nothing_here(trace: str) -> Response:
    """The answer to an address that nothing has."""
    return refusal(404, "unknown_address", "nothing is at this address", trace=trace, do="Start at “/”.")


def _of_our_tree(request: Request, error: Exception) -> Response:
    assert isinstance(error, UrbanInventoryError)
    status = outcome_of(error).http_status
    words = problem(error)
    if status >= 500:
        trace, caller = request.state.trace, caller_of(request.scope)
        # What was ended because nobody waits for it is no failure.
        if caller is None or not caller.is_gone:
            said = error if status == 500 else None
            _LOG.error("trace %s: %s", trace, error, exc_info=said, extra={"trace": trace})
        if status == 500:
            return last_resort(trace)
    return _answer(
        request, status, words["code"] or "error", words["what"] or "", words["where"], words["do"]
    )


def _of_parameters(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    faults = "; ".join(
        f"{'.'.join(str(part) for part in fault['loc'][1:]) or 'body'}: {fault['msg']}"
        for fault in error.errors()[:5]
    )
    return _answer(request, 400, "bad_request", faults[:500], None, "See the API’s description.")


def _of_framework(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        return _answer(request, 404, "unknown_address", "nothing is at this address", None, "Start at “/”.")
    phrase = HTTPStatus(error.status_code).phrase
    return _answer(
        request, error.status_code, phrase.lower().replace(" ", "_"), str(error.detail)[:300], None, None
    )


def _answer(
    request: Request, status: int, code: str, what: str, where: str | None, do: str | None
) -> Response:
    trace = request.state.trace
    if request.method == "GET" and prefers_html(request):
        problem_words = {"status": status, "what": what, "where": where, "do": do, "trace": trace}
        return pages.page(request, "problem.html", status=status, problem=problem_words)
    return refusal(status, code, what, trace=trace, where=where, do=do)
