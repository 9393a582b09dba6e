const b=document.getElementById('switch');
function show(l){document.body.className=l;document.documentElement.lang=l==='zh'?'zh-CN':'en';b.textContent=l==='zh'?'English':'中文'}
b.onclick=()=>show(document.body.className==='zh'?'en':'zh');
if((navigator.language||'').startsWith('zh')||location.hash==='#zh')show('zh');
const value=c=>{const t=c.innerText.trim(),n=parseFloat(t.replace(/[%,]/g,''));return isNaN(n)?t:n};
document.querySelectorAll('th').forEach(th=>{const sort=()=>{const t=th.closest('table'),k=[...th.parentNode.children].indexOf(th),
up=th.getAttribute('aria-sort')!=='descending';t.querySelectorAll('th').forEach(o=>o.removeAttribute('aria-sort'));
th.setAttribute('aria-sort',up?'descending':'ascending');const body=t.tBodies[0];
[...body.rows].sort((x,y)=>{const a=value(x.cells[k]),c=value(y.cells[k]);const r=typeof a==='number'&&typeof c==='number'?a-c:String(a).localeCompare(String(c));return up?-r:r})
.forEach(r=>body.appendChild(r))};th.onclick=sort;th.onkeydown=e=>{if(e.key==='Enter')sort()}});
