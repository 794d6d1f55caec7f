// Runs before the first paint, so that a dark page never flashes white. Its own file: the page allows no inline script.
;(function () {
  var choice = null
  var locale = null
  try {
    choice = localStorage.getItem('danlu.theme')
    locale = localStorage.getItem('danlu.locale')
  } catch {
    // A browser that forbids storage gets the system's theme.
  }
  var dark = choice === 'dark' || (choice !== 'light' && window.matchMedia('(prefers-color-scheme: dark)').matches)
  document.documentElement.dataset.theme = dark ? 'dark' : 'light'
  document.documentElement.lang = (locale || navigator.language || 'en').toLowerCase().indexOf('zh') === 0 ? 'zh-CN' : 'en'
})()
