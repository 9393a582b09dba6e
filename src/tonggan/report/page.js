const b=document.getElementById('switch');
function show(l){document.body.className=l;document.documentElement.lang=l==='zh'?'zh-CN':'en';b.textContent=l==='zh'?'English':'中文'}
b.onclick=()=>show(document.body.className==='zh'?'en':'zh');
if((navigator.language||'').startsWith('zh')||location.hash==='#zh')show('zh');
// In each direction: numbers and dates by their value, then texts, then empty cells.
const kind=c=>c.classList.contains('empty')?2:c.dataset.value===undefined?1:0;
const compare=(a,b)=>kind(a)===0?a.dataset.value-b.dataset.value:a.innerText.localeCompare(b.innerText,document.documentElement.lang,{numeric:true});
document.querySelectorAll('th').forEach(th=>{const sort=()=>{const t=th.closest('table'),k=[...th.parentNode.children].indexOf(th),
down=th.getAttribute('aria-sort')!=='descending';t.querySelectorAll('th').forEach(o=>o.removeAttribute('aria-sort'));
th.setAttribute('aria-sort',down?'descending':'ascending');const body=t.tBodies[0];
[...body.rows].sort((x,y)=>{const a=x.cells[k],b=y.cells[k];return kind(a)-kind(b)||(down?-1:1)*compare(a,b)})
.forEach(r=>body.appendChild(r))};th.onclick=sort;th.onkeydown=e=>{if(e.key==='Enter')sort()}});
