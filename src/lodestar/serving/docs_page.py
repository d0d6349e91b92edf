"""The page of the OpenAPI document: everything comes from here, and it is dark where the browser is."""

from fastapi import FastAPI, Request
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse

__all__ = ["add_docs_page"]

# Where fastapi-offline serves Swagger UI from.
STATIC = "/static-offline-docs"
# Swagger UI has dark colours, and nothing but a class of the page's root asks for them.
FOLLOWS_THE_BROWSER = """\
<meta name="color-scheme" content="light dark">
    <script>
    const dark = matchMedia("(prefers-color-scheme: dark)");
    const follow = () => document.documentElement.classList.toggle("dark-mode", dark.matches);
    dark.addEventListener("change", follow);
    follow();
    </script>
"""


def add_docs_page(app: FastAPI) -> None:
    """Add `/docs`."""

    @app.get("/docs", include_in_schema=False)
    async def docs(request: Request) -> HTMLResponse:
        root = request.scope.get("root_path", "")
        page = get_swagger_ui_html(
            openapi_url=f"{root}{app.openapi_url}",
            title=f"{app.title} - Swagger UI",
            swagger_js_url=f"{root}{STATIC}/swagger-ui-bundle.js",
            swagger_css_url=f"{root}{STATIC}/swagger-ui.css",
            swagger_favicon_url=f"{root}{STATIC}/favicon.png",
        )
        text = bytes(page.body).decode()
        return HTMLResponse(text.replace("</head>", f"{FOLLOWS_THE_BROWSER}    </head>", 1))
