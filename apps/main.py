"""All pages in one navigation. A room is imported only by its own page, so that the gallery is there at once."""

import contents
import streamlit as st
import ui

st.set_page_config(layout="wide", page_icon="🔬", initial_sidebar_state=250)
page = st.navigation(contents.navigation(), position="hidden" if ui.presenting() else "sidebar", expanded=True)
ui.on_page(page.url_path)
ui.style()
page.run()
